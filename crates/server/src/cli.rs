//! The command line, compatible with Envoy's where it has one.
//! Source: <https://www.envoyproxy.io/docs/envoy/latest/operations/cli>.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tidegate_types::{Compat, DrainStrategy};

use crate::logging::{ComponentLevels, Level, Pattern};

/// Envoy-compatible proxy. Without arguments it serves a demo and says where.
#[derive(Debug, Clone, Parser)]
#[command(name = "tidegate", version, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    /// What to do other than serve.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// How to serve.
    #[command(flatten)]
    pub(crate) serve: ServeOptions,
}

/// Subcommands.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Command {
    /// Check configuration files and say everything that is wrong with them.
    Validate {
        /// JSON or YAML files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Print the JSON Schema of the configuration, for editors.
    Schema,
}

/// Options of serving.
#[derive(Debug, Clone, Args)]
pub(crate) struct ServeOptions {
    /// Configuration file: JSON, or YAML by its extension.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config_path: Option<PathBuf>,
    /// Configuration as YAML or JSON text, instead of a file.
    #[arg(long, value_name = "TEXT", conflicts_with = "config_path")]
    pub(crate) config_yaml: Option<String>,
    /// Worker threads; default: one per hardware thread.
    #[arg(long, value_name = "N")]
    pub(crate) concurrency: Option<usize>,
    /// Log level.
    #[arg(short, long, default_value = "info", value_parser = Level::parse)]
    pub(crate) log_level: Level,
    /// Levels of single loggers: `http:debug,router:trace`.
    #[arg(long, value_name = "LOGGER:LEVEL,..", default_value = "", value_parser = ComponentLevels::parse)]
    pub(crate) component_log_level: ComponentLevels,
    /// File to log to instead of stderr.
    #[arg(long, value_name = "FILE")]
    pub(crate) log_path: Option<PathBuf>,
    /// A line of the log: %Y %m %d %H %M %S %T %e %f time, %t thread, %l %L level, %n logger, %v message,
    /// %g %s file, %# line, %P process.
    #[arg(long, value_name = "FORMAT", default_value = Pattern::DEFAULT, value_parser = Pattern::parse)]
    pub(crate) log_format: Pattern,
    /// Serve, or only check the configuration.
    #[arg(long, value_enum, default_value_t = Mode::Serve)]
    pub(crate) mode: Mode,
    /// Seconds that requests get to finish when the process ends or a listener goes away.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub(crate) drain_time_s: u64,
    /// Whether `/drain_listeners?graceful` tells clients by and by (`gradual`), or by the next response of each
    /// (`immediate`).
    #[arg(long, value_name = "STRATEGY", default_value = "gradual", value_parser = drain_strategy)]
    pub(crate) drain_strategy: DrainStrategy,
    /// Accepted, ignored: there is no hot restart.
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    pub(crate) parent_shutdown_time_s: u64,
    /// Accepted, ignored: there is no hot restart.
    #[arg(long, value_name = "ID", default_value_t = 0)]
    pub(crate) base_id: u64,
    /// Accepted, ignored: there is no hot restart.
    #[arg(long)]
    pub(crate) use_dynamic_base_id: bool,
    /// Accepted, ignored: there is no hot restart.
    #[arg(long)]
    pub(crate) disable_hot_restart: bool,
    /// Only 0: there is no hot restart.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = first_epoch)]
    pub(crate) restart_epoch: u32,
    /// `node.cluster`, unless the configuration names it.
    #[arg(long, value_name = "NAME", default_value = "")]
    pub(crate) service_cluster: String,
    /// `node.id`, unless the configuration names it.
    #[arg(long, value_name = "NAME", default_value = "")]
    pub(crate) service_node: String,
    /// `node.locality.zone`, unless the configuration names it.
    #[arg(long, value_name = "NAME", default_value = "")]
    pub(crate) service_zone: String,
    /// File to write the admin address to; useful with port 0.
    #[arg(long, value_name = "FILE")]
    pub(crate) admin_address_path: Option<PathBuf>,
    /// Milliseconds between writes of buffered access logs.
    #[arg(long, value_name = "MS", default_value_t = 1000)]
    pub(crate) file_flush_interval_msec: u64,
    /// Behave as Envoy does where Tidegate differs in timeouts and retries, and refuse its extensions.
    #[arg(long)]
    pub(crate) envoy_strict: bool,
    /// For measurements: tasks polled by a worker between two looks for I/O events.
    #[arg(long, value_name = "N", hide = true)]
    pub(crate) worker_event_interval: Option<u32>,
    /// For measurements: tasks polled by a worker between two looks for wake-ups from other threads.
    #[arg(long, value_name = "N", hide = true)]
    pub(crate) worker_global_queue_interval: Option<u32>,
}

impl ServeOptions {
    /// `--drain-time-s`.
    pub(crate) fn drain_time(&self) -> Duration {
        Duration::from_secs(self.drain_time_s)
    }

    /// `--file-flush-interval-msec`.
    pub(crate) fn log_flush_interval(&self) -> Duration {
        Duration::from_millis(self.file_flush_interval_msec.max(1))
    }

    /// `--envoy-strict`.
    pub(crate) fn compat(&self) -> Compat {
        if self.envoy_strict { Compat::EnvoyStrict } else { Compat::Tidegate }
    }

    /// Number of workers: the same as long as the process lives.
    pub(crate) fn workers(&self) -> usize {
        // The answer is put together from files (cgroups), and 10,000 clusters ask for it.
        static HARDWARE: OnceLock<usize> = OnceLock::new();
        let hardware = || std::thread::available_parallelism().map_or(1, usize::from);
        self.concurrency.filter(|n| *n > 0).unwrap_or_else(|| *HARDWARE.get_or_init(hardware))
    }
}

/// `--drain-strategy`: of `/drain_listeners?graceful`; a process that ends tells everybody at once with either.
fn drain_strategy(text: &str) -> Result<DrainStrategy, String> {
    match text {
        "immediate" => Ok(DrainStrategy::Immediate),
        "gradual" => Ok(DrainStrategy::Gradual),
        _ => Err("unknown drain strategy, expected `gradual` or `immediate`".to_owned()),
    }
}

/// `--restart-epoch`: a hot restarter that counts on the new process must hear that there is none.
fn first_epoch(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(0) => Ok(0),
        Ok(_) => Err("hot restart is not supported by this build: only 0 is accepted".to_owned()),
        Err(_) => Err("not a number".to_owned()),
    }
}

/// `--mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Serve.
    Serve,
    /// Check the configuration and exit.
    Validate,
    /// Envoy's older name for the same check.
    #[value(name = "init_only")]
    InitOnly,
}

impl Mode {
    /// As the command line spells it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Serve => "Serve",
            Self::Validate => "Validate",
            Self::InitOnly => "InitOnly",
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("tidegate").chain(line.split_whitespace()))
    }

    #[test]
    fn an_envoy_command_line_works_unchanged() {
        let line = "-c x.json --concurrency 2 -l debug --use-dynamic-base-id --drain-time-s 3 --mode serve \
                    --log-path /tmp/l --component-log-level http:trace,router:off --base-id 7 \
                    --parent-shutdown-time-s 4 --service-cluster c --service-node n --disable-hot-restart";
        let cli = parse(line).unwrap().serve;
        assert_eq!(cli.config_path, Some("x.json".into()));
        assert_eq!((cli.workers(), cli.log_level), (2, Level::Debug));
        assert_eq!(cli.drain_time(), Duration::from_secs(3));
        assert_eq!((&*cli.service_cluster, &*cli.service_node), ("c", "n"));
    }

    #[test]
    fn subcommands_and_mistakes() {
        let Some(Command::Validate { files }) = parse("validate a.json b.yaml").unwrap().command else {
            panic!("no validate")
        };
        assert_eq!(files.len(), 2);
        assert!(matches!(parse("schema").unwrap().command, Some(Command::Schema)));
        assert!(parse("").unwrap().command.is_none());
        for bad in [
            "--mode foo",
            "-l foo",
            "--concurrency abc",
            "--nope",
            "validate",
            "--drain-strategy sudden",
            "--restart-epoch 1",
            "--log-format %Q",
            "--component-log-level http",
            "--component-log-level nope:debug",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert_eq!(parse("--mode validate").unwrap().serve.mode, Mode::Validate);
    }
}
