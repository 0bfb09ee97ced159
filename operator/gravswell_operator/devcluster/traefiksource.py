"""Traefik's source as a Gateway controller and nothing else: a tenth of what it compiles.

What reads Gateways and routes, what picks a backend by its weight and what carries the request there is Traefik's own,
as published. Left out are its other providers, its middlewares but those that Gateway API's filters become, plugins,
certificates from ACME and the exporters of metrics that have a client of their own; the program around it is ours.
"""

import re
from collections.abc import Collection
from pathlib import Path

_MODULE = "github.com/traefik/traefik/v3"
PROGRAM = f"{_MODULE}/cmd/gateway"
"""The package of the program that :func:`trim` adds."""

_PROVIDERS = frozenset(
    {
        *("consulcatalog", "docker", "ecs", "file", "http", "crd", "ingress", "ingressnginx", "knative", "consul"),
        *("etcd", "redis", "zk", "nomad"),
    }
)
"""The packages of the providers that go, as the static configuration names them."""
_FILTERS = frozenset({"RequestHeaderModifier", "ResponseHeaderModifier", "RequestRedirect", "URLRewrite"})
_OF_NO_MIDDLEWARE = frozenset({"headermodifier", "gapiredirect", "urlrewrite", "observability"})

_EXTENSION = """package ext

// HTTP is where a build of Traefik may have more to say of HTTP.
type HTTP struct{}

// Router is where it may have more to say of a router.
type Router struct{}
"""
_ACME = """package acme

// Configuration is what others look for, and never find.
type Configuration struct {
	TLSChallenge  *struct{}
	HTTPChallenge *struct{ EntryPoint string }
}
"""
_PLUGINS = """package plugins

import (
	"context"
	"net/http"
)

// Constructor creates a plugin handler.
type Constructor func(context.Context, http.Handler) (http.Handler, error)
"""
_MAIN = """// A Gateway controller of Traefik's own parts, for the cluster of KUBECONFIG.
//
// Its arguments are addresses: where /ping answers, then those of entry points. A listener of a Gateway is served by
// the entry point that has its port.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/rs/zerolog"
	"github.com/rs/zerolog/log"
	"github.com/traefik/traefik/v3/pkg/config/dynamic"
	"github.com/traefik/traefik/v3/pkg/config/runtime"
	"github.com/traefik/traefik/v3/pkg/config/static"
	"github.com/traefik/traefik/v3/pkg/observability/metrics"
	"github.com/traefik/traefik/v3/pkg/ping"
	"github.com/traefik/traefik/v3/pkg/provider"
	"github.com/traefik/traefik/v3/pkg/provider/kubernetes/gateway"
	"github.com/traefik/traefik/v3/pkg/provider/traefik"
	"github.com/traefik/traefik/v3/pkg/proxy/httputil"
	"github.com/traefik/traefik/v3/pkg/safe"
	"github.com/traefik/traefik/v3/pkg/server"
	"github.com/traefik/traefik/v3/pkg/server/middleware"
	"github.com/traefik/traefik/v3/pkg/server/service"
	"github.com/traefik/traefik/v3/pkg/tcp"
	"github.com/traefik/traefik/v3/pkg/tls"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	zerolog.SetGlobalLevel(zerolog.InfoLevel)
	if len(os.Args) < 3 {
		log.Fatal().Msg("say where /ping answers, and one entry point or more")
	}
	if err := serve(ctx, os.Args[1], os.Args[2:]); err != nil {
		log.Fatal().Err(err).Send()
	}
}

// providers are all that the server is configured by.
type providers []provider.Provider

func (all providers) Init() error { return nil }

func (all providers) Provide(configurations chan<- dynamic.Message, pool *safe.Pool) error {
	for _, one := range all {
		if err := one.Provide(configurations, pool); err != nil {
			return err
		}
	}
	return nil
}

func serve(ctx context.Context, pingAddress string, addresses []string) error {
	configuration := static.Configuration{
		EntryPoints:      static.EntryPoints{"traefik": entryPoint(pingAddress)},
		Providers:        &static.Providers{},
		ServersTransport: &static.ServersTransport{MaxIdleConnsPerHost: 200},
		Ping:             &ping.Handler{},
	}
	configuration.Ping.SetDefaults()
	routes := &gateway.Provider{EntryPoints: map[string]gateway.Entrypoint{}}
	routes.SetDefaults()
	var names []string
	for number, address := range addresses {
		name := fmt.Sprintf("gateway%d", number)
		names = append(names, name)
		configuration.EntryPoints[name] = entryPoint(address)
		routes.EntryPoints[name] = gateway.Entrypoint{Address: address}
	}
	if err := routes.Init(); err != nil {
		return err
	}

	pool := safe.NewPool(context.Background())
	certificates := tls.NewManager(nil)
	pool.GoCtx(certificates.Run)
	registry := metrics.NewMultiRegistry(nil)
	observability := middleware.NewObservabilityMgr(configuration, registry, nil, nil, nil, nil)
	entryPoints, err := server.NewTCPEntryPoints(configuration.EntryPoints, nil, registry)
	if err != nil {
		return err
	}
	transports := service.NewTransportManager(nil)
	proxies := httputil.NewProxyBuilder(transports, nil)
	dialers := tcp.NewDialerManager(nil)
	services := service.NewManagerFactory(configuration, pool, observability, transports, proxies, nil, certificates)
	routers, err := server.NewRouterFactory(configuration, services, certificates, observability, nil, dialers)
	if err != nil {
		return err
	}

	// The internal one is the last: nothing is applied before its configuration has come.
	all := providers{routes, traefik.New(configuration)}
	watcher := server.NewConfigurationWatcher(pool, all, names, "internal", false)
	watcher.AddListener(func(found dynamic.Configuration) {
		certificates.UpdateConfigs(context.Background(), found.TLS.Stores, found.TLS.Options, found.TLS.Certificates)
	})
	watcher.AddListener(func(found dynamic.Configuration) {
		transports.Update(found.HTTP.ServersTransports)
		proxies.Update(found.HTTP.ServersTransports)
		dialers.Update(found.TCP.ServersTransports)
	})
	watcher.AddListener(func(found dynamic.Configuration) {
		made, _ := routers.CreateRouters(runtime.NewConfig(found))
		entryPoints.Switch(made)
	})
	running := server.NewServer(pool, entryPoints, server.UDPEntryPoints{}, watcher, observability)
	running.Start(ctx)
	defer running.Close()
	running.Wait()
	return nil
}

func entryPoint(address string) *static.EntryPoint {
	made := &static.EntryPoint{Address: address}
	made.SetDefaults()
	return made
}
"""


def trim(source: Path) -> None:
    """Leave out what a Gateway controller does not need, in a copy of the module, and add its program."""
    packages = source / "pkg"
    _use_published_modules(source)
    _leave_providers_out(packages)
    _leave_middlewares_out(packages / "server/middleware/middlewares.go")
    _leave_exporters_out(packages)
    _replace(packages / "plugins", {"plugins.go": _PLUGINS}, kept={"types.go"})
    _leave_updates_out(packages / "version/version.go")
    _replace(source / "cmd/gateway", {"main.go": _MAIN})


def _use_published_modules(source: Path) -> None:
    """Import forks under their own names, and write the module that is a folder of Traefik's repository.

    Traefik's ``go.mod`` puts both in their place, which only a main module's may do.
    """
    modules = source / "go.mod"
    text = modules.read_text()
    fork = re.search(r"github\.com/gorilla/mux => (\S+) (\S+)", text)
    if fork is None:
        raise ValueError(f"{modules} names no fork of gorilla/mux any more")
    text = re.sub(r"(?m)^\tgithub\.com/(?:abbot/go-http-auth|traefik/traefik/dynamic/ext) .*\n", "", text)
    modules.write_text(f"{text}\nrequire {fork[1]} {fork[2]}\n")
    for file in (source / "pkg").rglob("*.go"):
        text = file.read_text()
        changed = text.replace('"github.com/gorilla/mux"', f'"{fork[1]}"')
        changed = changed.replace('"github.com/traefik/traefik/dynamic/ext"', f'"{_MODULE}/pkg/config/dynamic/ext"')
        if changed != text:
            file.write_text(changed)
    _replace(source / "pkg/config/dynamic/ext", {"ext.go": _EXTENSION})


def _leave_providers_out(packages: Path) -> None:
    static = packages / "config/static/static_config.go"
    # What follows completes and checks what a user configured, of all providers.
    text = static.read_text().partition("// SetEffectiveConfiguration ")[0]
    text = _without_imports(
        text, _PROVIDERS | {"errors", "fmt", "slog", "slices", "strings", "legolog", "log", "slogzerolog"}
    )
    of_providers = "|".join(sorted(_PROVIDERS))
    text = re.sub(rf"(?m)^\t(?:{of_providers})\.\w+,\n", "", text)  # their names
    text = re.sub(rf"(?m)^\t\w+ +\*(?:{of_providers})\.\w+ .*\n", "", text)  # their configurations
    static.write_text(text)
    _replace(packages / "provider/acme", {"acme.go": _ACME})


def _leave_middlewares_out(builder: Path) -> None:
    first, end, last = builder.read_text().rpartition("\tif middleware == nil {")
    head, *parts = re.split(r"(?m)^(?=\tif config\.)", first)
    kept = [part for part in parts if re.match(r"\tif config\.(\w+)", part)[1] in _FILTERS]  # type: ignore[index]
    gone = {
        alias or name
        for alias, name in re.findall(rf'(?m)^\t(?:(\w+) )?"{_MODULE}/pkg/middlewares/(?:\S+/)?(\w+)"', head)
    }
    head = _without_imports(head, (gone - _OF_NO_MIDDLEWARE) | {"reflect", "log"})
    builder.write_text("".join((head, *kept, end, last)))


def _leave_exporters_out(packages: Path) -> None:
    for name in ("datadog", "influxdb2", "statsd"):
        (packages / f"observability/metrics/{name}.go").unlink()
    server = packages / "server/server.go"
    server.write_text(re.sub(r"\tmetrics\.Stop(?:Datadog|Statsd|InfluxDB2)\(\)\n", "", server.read_text()))


def _leave_updates_out(version: Path) -> None:
    """It asks nobody whether there is a newer Traefik."""
    text = version.read_text().partition("// CheckNewVersion ")[0]
    version.write_text(_without_imports(text, {"context", "github", "goversion"}))


def _without_imports(text: str, names: Collection[str]) -> str:
    def left(line: re.Match[str]) -> str:
        return "" if (line[1] or line[2]) in names else line[0]

    return re.sub(r'(?m)^\t(?:(\w+) )?"(?:\S*/)?([\w-]+)"\n', left, text)


def _replace(package: Path, files: dict[str, str], *, kept: Collection[str] = ()) -> None:
    """Make ``files`` all that a package has, beside those that are ``kept``."""
    for file in package.glob("*.go"):
        if file.name not in kept:
            file.unlink()
    package.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (package / name).write_text(text)
