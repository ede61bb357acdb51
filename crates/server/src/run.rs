//! The entry point of a binary.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use tidegate_config::Format;
use tidegate_filter::Registry;
use tidegate_stats::Store;

use crate::build::{Builder, Draft, unread, warnings};
use crate::cli::{Cli, Command, Mode, ServeOptions};
use crate::demo::{Demo, GREETING};
use crate::reload::lines;
use crate::runtime::RuntimeLoader;
use crate::serve::serve;
use crate::snapshot::Source;

/// Does what the command line says, with the filters of `registry`: the whole of a custom build's `main`.
///
/// The exit code is 0 after a drained end or a valid configuration, 1 for every mistake of the command line or
/// the configuration, as Envoy's are.
pub fn run(registry: Registry) -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are answers; a closed stdout is not worth a word.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    match cli.command {
        Some(Command::Schema) => {
            let schema = serde_json::to_string_pretty(&tidegate_config::schema()).unwrap_or_default();
            say(&schema);
            ExitCode::SUCCESS
        }
        Some(Command::Validate { files }) => {
            let sources: Vec<_> = files.into_iter().map(Source::File).collect();
            validate(&sources, &registry, &cli.serve)
        }
        None => with_source(cli.serve, registry),
    }
}

fn with_source(options: ServeOptions, registry: Registry) -> ExitCode {
    let source = match (&options.config_path, &options.config_yaml) {
        (Some(path), _) => Source::File(path.clone()),
        (None, Some(text)) => Source::Text(text.as_str().into(), format_of(text)),
        (None, None) if options.mode == Mode::Serve => return run_demo(options, registry),
        (None, None) => return fail("error: --config-path or --config-yaml is needed"),
    };
    if options.mode != Mode::Serve {
        return validate(&[source], &registry, &options);
    }
    exit_code(serve(options, source, registry, |_| {}))
}

fn run_demo(options: ServeOptions, registry: Registry) -> ExitCode {
    match Demo::start() {
        Ok(demo) => exit_code(serve(options, demo.source, registry, |_| say(GREETING))),
        Err(error) => fail(&format!("cannot start the demo upstream: {error}")),
    }
}

/// Text from the command line has no extension to tell; JSON begins with a brace.
fn format_of(text: &str) -> Format {
    if text.trim_start().starts_with('{') { Format::Json } else { Format::Yaml }
}

/// Builds everything that serving would build, and binds nothing.
fn validate(sources: &[Source], registry: &Registry, options: &ServeOptions) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for source in sources {
        let store = Store::new(1 + options.workers());
        let runtime = RuntimeLoader::new(&store);
        let builder = Builder { registry, store: &store, options, runtime: &runtime };
        match Draft::build(source, &builder, None) {
            Ok(draft) => {
                let (snapshot, _) = draft.finish(&builder, None);
                let bootstrap = &snapshot.base.bootstrap;
                for warning in unread(bootstrap).into_iter().chain(warnings(bootstrap)) {
                    let _ = writeln!(io::stderr(), "warning: {warning}");
                }
                say(&format!("configuration '{}' OK", source.name()));
            }
            Err(errors) => {
                let name = source.name();
                code = fail(&format!("{}\nerror initializing configuration '{name}'", lines(&errors)));
            }
        }
    }
    code
}

fn exit_code(result: Result<ExitCode, impl std::fmt::Display>) -> ExitCode {
    result.unwrap_or_else(|error| fail(&error.to_string()))
}

/// To stdout; nobody may be reading.
fn say(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// To stderr.
fn fail(text: &str) -> ExitCode {
    let _ = writeln!(io::stderr(), "{text}");
    ExitCode::FAILURE
}

/// Writes `address` to the file of `--admin-address-path`.
pub(crate) fn write_address(path: &Path, address: &str) -> Result<(), String> {
    std::fs::write(path, address).map_err(|error| format!("--admin-address-path: {error}"))
}
