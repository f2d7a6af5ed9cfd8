//! The operator: wiring and subcommands.

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use incident_operator::{
    api::GoDuration,
    cli,
    controller::{self, Options},
    crds,
    lease::Times,
    manifests, reference,
    telemetry::{self, LogFormat},
};
use std::{fs, net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

/// Makes an incident a Kubernetes resource: starts the clocks, stops the bleeding, keeps the record.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the operator.
    Run(Run),
    /// Print the CustomResourceDefinitions, or write one file each.
    Crds {
        /// Folder to write to.
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// Render resources that are kept in files, without a cluster.
    Render {
        #[command(subcommand)]
        what: Render,
    },
    /// Clean resources of a cluster so that they can be kept in git and applied again.
    Export {
        #[command(subcommand)]
        what: Export,
    },
    /// Say what postmortems in a file lack; exit code 1 when they lack something.
    Lint {
        /// File with one or more postmortems, YAML or JSON; - is standard input.
        #[arg(short, long)]
        file: PathBuf,
    },
    /// Check a configuration file; exit code 1 when it is wrong.
    CheckConfig {
        /// The file; - is standard input.
        file: PathBuf,
    },
    /// Bring what documentation and chart say of the code up to date.
    Reference {
        /// Top of the repository.
        #[arg(long, default_value = ".")]
        root: PathBuf,
    },
    /// Release every mitigation and wait for it, before the operator is uninstalled; exit code 1 when some are left.
    ReleaseAll(ReleaseAll),
    /// Write what the chart needs to know of the code: CRDs and rights.
    Manifests {
        /// Folder to write to, the chart's `files`.
        #[arg(long)]
        dir: PathBuf,
    },
}

#[derive(Subcommand)]
enum Render {
    /// The Markdown of a postmortem.
    Postmortem {
        /// File with the postmortem, YAML or JSON; - is standard input.
        #[arg(short, long)]
        file: PathBuf,
    },
}

#[derive(Subcommand)]
enum Export {
    /// Postmortems: without status and what the cluster added. kubectl get pm NAME -o yaml | incident-operator export
    /// postmortem -f - > NAME.yaml
    Postmortem {
        /// File with one or more postmortems, YAML or JSON; - is standard input.
        #[arg(short, long)]
        file: PathBuf,
    },
}

#[derive(clap::Args)]
struct ReleaseAll {
    /// Only this namespace; all of them when left out.
    #[arg(long)]
    namespace: Option<String>,
    /// Only say what is in force; exit code 1 when something is.
    #[arg(long)]
    dry_run: bool,
    /// How long the releases may take.
    #[arg(long, default_value = "5m", value_parser = duration)]
    timeout: Duration,
}

#[derive(clap::Args)]
struct Run {
    /// Only this namespace; all of them when left out.
    #[arg(long, env = "WATCH_NAMESPACE")]
    watch_namespace: Option<String>,
    /// Namespace of the lease by which one replica is chosen.
    #[arg(long, env = "POD_NAMESPACE", default_value = "incident-operator")]
    lease_namespace: String,
    /// Name of that lease.
    #[arg(long, env = "LEASE_NAME", default_value = "incident-operator")]
    lease_name: String,
    /// How long a lease is good for after its last renewal; whole seconds.
    #[arg(long, env = "LEASE_DURATION", default_value = "15s", value_parser = duration)]
    lease_duration: Duration,
    /// How long the leading replica goes on after its last renewal.
    #[arg(long, env = "RENEW_DEADLINE", default_value = "10s", value_parser = duration)]
    renew_deadline: Duration,
    /// Time between renewals.
    #[arg(long, env = "RETRY_PERIOD", default_value = "2s", value_parser = duration)]
    retry_period: Duration,
    /// Name of this replica, unlike all others'; a random one when left out.
    #[arg(long, env = "POD_NAME")]
    identity: Option<String>,
    /// Address for /livez, /readyz and /metrics.
    #[arg(long, env = "LISTEN", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Whether admission stamps the authenticated author on what people create (the chart says so).
    #[arg(long, env = "SIGNED_REQUESTS", default_value_t = false, action = clap::ArgAction::Set)]
    signed_requests: bool,
    /// Configuration file; it is read again when it changes. Without it, the defaults are in force.
    #[arg(long, env = "CONFIG_FILE")]
    config: Option<PathBuf>,
    /// Whether MitigationPolicies can be read, and so are enforced (the chart says so).
    #[arg(long, env = "MITIGATION_POLICIES", default_value_t = true, action = clap::ArgAction::Set)]
    mitigation_policies: bool,
    /// Whether the operator may get Secrets, of which it asks nothing but whether they exist (the chart says so).
    #[arg(long, env = "SECRET_NAMES", default_value_t = false, action = clap::ArgAction::Set)]
    secret_names: bool,
    /// A seeded bug, for the test of the fault harness.
    #[cfg(feature = "mutants")]
    #[arg(long, value_enum, hide = true)]
    mutant: Option<incident_operator::mutants::Mutant>,
    /// Format of the logs; RUST_LOG sets the level.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

fn main() -> ExitCode {
    match start(Cli::parse()) {
        Ok(code) => code,
        // Whoever read it has what they wanted: `… | head`.
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Run(run) => operate(run)?,
        Command::Crds { dir: None } => {
            let all =
                crds::all().iter().map(|crd| format!("---\n{}\n", crds::to_yaml(crd).trim_end())).collect();
            print(all)?;
        }
        Command::Crds { dir: Some(dir) } => {
            let files = crds::all().iter().map(|crd| (crds::file_name(crd), crds::to_yaml(crd))).collect();
            write_all(&dir, files)?;
        }
        Command::Manifests { dir } => write_all(&dir, manifests::files())?,
        Command::CheckConfig { file } => print(cli::check_config::check_file(file)? + "\n")?,
        Command::Reference { root } => write_all(&root, reference::files(&root)?)?,
        Command::Render { what: Render::Postmortem { file } } => print(cli::postmortem::render_file(file)?)?,
        Command::Export { what: Export::Postmortem { file } } => print(cli::export::export_file(file)?)?,
        Command::Lint { file } => return lint(&file),
        Command::ReleaseAll(options) => return release_all(options),
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes to standard output, which may be closed before the end.
fn print(text: String) -> anyhow::Result<()> {
    use std::io::Write;
    Ok(std::io::stdout().lock().write_all(text.as_bytes())?)
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

fn lint(file: &std::path::Path) -> anyhow::Result<ExitCode> {
    let findings = cli::postmortem::lint_file(file)?;
    let failing = findings.iter().any(|finding| finding.fails());
    // Whether anybody reads to the end changes nothing about the verdict.
    print(findings.iter().map(|finding| format!("{finding}\n")).collect())
        .or_else(|error| if is_closed_pipe(&error) { Ok(()) } else { Err(error) })?;
    Ok(if failing { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn write_all(dir: &std::path::Path, files: Vec<(String, String)>) -> anyhow::Result<()> {
    for (name, text) in files {
        let path = dir.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        }
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn release_all(options: ReleaseAll) -> anyhow::Result<ExitCode> {
    let ReleaseAll { namespace, dry_run, timeout } = options;
    let options = cli::release_all::Options { namespace, dry_run, timeout };
    let done = cli::release_all::run(&way_to_the_cluster().await?, &options).await?;
    Ok(if done { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn way_to_the_cluster() -> anyhow::Result<kube::Config> {
    let config =
        kube::Config::infer().await.context("no way to the cluster: set KUBECONFIG, or run in a pod")?;
    // Not looked at where the way is that of a pod.
    Ok(controller::client::following_authorities(config, kube::config::Kubeconfig::read().ok().as_ref()))
}

/// One worker: what a life costs is spent on waking threads otherwise (docs/performance.md). What takes long is done
/// aside (`block_in_place`, `spawn_blocking`).
#[tokio::main(worker_threads = 1)]
async fn operate(run: Run) -> anyhow::Result<()> {
    telemetry::start(run.log_format);
    #[cfg(feature = "mutants")]
    if let Some(mutant) = run.mutant {
        incident_operator::mutants::become_mutant(mutant);
    }
    let config = way_to_the_cluster().await?;
    let identity = run.identity.unwrap_or_else(|| format!("{}-{:08x}", gethostname(), fastrand::u32(..)));
    let lease_times = Times {
        lease_duration: run.lease_duration,
        renew_deadline: run.renew_deadline,
        retry_period: run.retry_period,
    };
    let options = Options {
        namespace: run.watch_namespace.filter(|n| !n.is_empty()),
        lease_namespace: run.lease_namespace,
        lease_name: run.lease_name,
        identity,
        lease_times: lease_times.checked().map_err(anyhow::Error::msg)?,
        listen: run.listen,
        signed: run.signed_requests,
        config: run.config,
        policies: run.mitigation_policies,
        secret_names: run.secret_names,
    };
    controller::run(config, options).await
}

fn duration(text: &str) -> Result<Duration, String> {
    GoDuration::from(text).get().ok_or_else(|| "use a duration such as 15s or 500ms".to_owned())
}

fn gethostname() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "incident-operator".to_owned() } else { name.to_owned() }
}
