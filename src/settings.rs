//! What the process is told: subcommand, flags, environment.
//!
//! Knows no client and no decision, and reads neither the process's arguments nor its environment: both are handed in.
//!
//! Every setting is an environment variable, or the flag of the same name (`LEASE_NAME` is `--lease-name`); the flag
//! wins. An empty variable is an absent one. What cannot be used is [one line](SettingsError) that names the variable and
//! the form that would be accepted; nothing is guessed.

mod endpoint;
mod parse;
#[cfg(test)]
mod tests;

use std::{ffi::OsString, net::IpAddr, sync::OnceLock, time::Duration};

use clap::{Args, Parser, Subcommand};
use uuid::Uuid;

use self::parse::Source;

/// Taints that say that a machine is about to go (design §3.3); `DISRUPTION_TAINTS` replaces the list.
pub const DISRUPTION_TAINTS: [&str; 7] = [
    "ToBeDeletedByClusterAutoscaler",
    "karpenter.sh/disrupted",
    "cloud.google.com/impending-node-termination",
    "aws-node-termination-handler/spot-itn",
    "aws-node-termination-handler/scheduled-maintenance",
    "aws-node-termination-handler/asg-lifecycle-termination",
    "node.cloudprovider.kubernetes.io/shutdown",
];

/// The Lease of an operator that is told no other name.
pub const LEASE_NAME: &str = "ip-address-controller-leader";

/// What the process is asked to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Be the operator.
    Run(Settings),
    /// Print the CustomResourceDefinition. Needs no setting, so none is looked at.
    Crd,
    /// Test everything that running needs, and say what is missing.
    Check(Settings),
    /// Take our finalizer, labels and taints off, without any cloud call.
    Release(Settings, Released),
}

/// Which allocations to let go of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Released {
    All,
    /// The one of this name.
    One(String),
}

/// The command line. Values stay text here, so that flag and variable go through the same check.
#[derive(Debug, Parser)]
#[command(
    name = "ip-address-controller",
    version,
    about = "Keeps reserved external addresses on healthy Kubernetes nodes",
    after_help = "Every option is also an environment variable: --lease-name is LEASE_NAME."
)]
pub struct Cli {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the operator (the default)
    Run,
    /// Print the CustomResourceDefinition as YAML
    Crd,
    /// Check CRD, permissions, Lease and cloud credentials, and say what is missing
    Check,
    /// Take finalizer, labels and taints off without any cloud call: the way out when nothing else is left
    Release {
        /// Every allocation
        #[arg(long)]
        all: bool,
        /// The allocation of this name
        name: Option<String>,
    },
}

/// Declares each flag beside the variable it stands for, so that neither can be forgotten.
macro_rules! flags {
    ($($(#[doc = $help:literal])+ $field:ident $variable:literal $form:literal;)+) => {
        #[derive(Debug, Default, Args)]
        struct Flags {
            $($(#[doc = $help])+ #[arg(long, global = true, value_name = $form)] $field: Option<OsString>,)+
        }

        impl Flags {
            /// The value of the flag that stands for `variable`.
            fn take(&mut self, variable: &str) -> Option<OsString> {
                match variable { $($variable => self.$field.take(),)+ _ => None }
            }
        }

        /// Every environment variable that this program reads for itself.
        pub const VARIABLES: &[&str] = &[$($variable),+];
    };
}

flags! {
    /// Name of the Lease [default: ip-address-controller-leader]
    lease_name "LEASE_NAME" "NAME";
    /// How long others respect an unchanged Lease [default: 60]
    lease_duration "LEASE_DURATION" "SECONDS";
    /// What leader and standby each add for the difference of their clocks [default: 2]
    lease_skew_grace_sec "LEASE_SKEW_GRACE_SEC" "SECONDS";
    /// Port of /metrics [default: 9999]
    metrics_port "METRICS_PORT" "PORT";
    /// Port of /healthz, /livez and /readyz [default: 8080]
    health_port "HEALTH_PORT" "PORT";
    /// Address that both ports are bound to [default: all]
    bind_address "BIND_ADDRESS" "IP";
    /// Version shown in metrics [default: this build's]
    controller_version "CONTROLLER_VERSION" "TEXT";
    /// Name of this cluster, as metric label `cluster` [default: no label]
    cluster_name "CLUSTER_NAME" "TEXT";
    /// error, warn, info, debug, trace, or directives such as info,kube=debug [default: info]
    log_level "LOG_LEVEL" "LEVEL";
    /// json or logfmt [default: json]
    log_format "LOG_FORMAT" "FORMAT";
    /// Name of this pod [default: the host name]
    pod_name "POD_NAME" "NAME";
    /// Namespace of this pod and of the Lease [default: that of the kubeconfig's context]
    pod_namespace "POD_NAMESPACE" "NAME";
    /// Uid of this pod [default: drawn at start]
    pod_uid "POD_UID" "UID";
    /// Name of the node that this pod runs on
    node_name "NODE_NAME" "NAME";
    /// Allocations reconciled at the same time [default: 4]
    max_concurrent_reconciles "MAX_CONCURRENT_RECONCILES" "COUNT";
    /// Changes of addresses under way at the same time for each account and region, the last look before each included [default: 32]
    max_concurrent_effects "MAX_CONCURRENT_EFFECTS" "COUNT";
    /// Cloud calls a second for each account and region [default: 5]
    cloud_qps "CLOUD_QPS" "NUMBER";
    /// Cloud calls at once for each account and region after a pause; a change, which is up to 10, goes through whole [default: 10]
    cloud_burst "CLOUD_BURST" "COUNT";
    /// Limit of one cloud call [default: 30s]
    cloud_timeout "CLOUD_TIMEOUT" "DURATION";
    /// Limit of one cloud operation, waiting for its end included [default: 120s]
    cloud_operation_timeout "CLOUD_OPERATION_TIMEOUT" "DURATION";
    /// Taint keys that say that a machine is about to go [default: a built-in list]
    disruption_taints "DISRUPTION_TAINTS" "KEY,KEY";
    /// Serve only allocations with these labels [default: all]
    watch_label_selector "WATCH_LABEL_SELECTOR" "SELECTOR";
    /// Observe: plan and report, change nothing [default: what each allocation says]
    controller_mode "CONTROLLER_MODE" "MODE";
    /// Allow plain-http cloud endpoints outside loopback [default: false]
    allow_insecure_endpoint "ALLOW_INSECURE_ENDPOINT" "BOOL";
    /// Endpoint of the Compute Engine API [default: Google's]
    google_compute_custom_endpoint "GOOGLE_COMPUTE_CUSTOM_ENDPOINT" "URL";
    /// Endpoint of every AWS API [default: Amazon's]
    aws_endpoint_url "AWS_ENDPOINT_URL" "URL";
    /// Endpoint of the EC2 API [default: AWS_ENDPOINT_URL, else Amazon's]
    aws_endpoint_url_ec2 "AWS_ENDPOINT_URL_EC2" "URL";
    /// Endpoint of Azure Resource Manager [default: that of the public cloud]
    azure_resource_manager_endpoint "AZURE_RESOURCE_MANAGER_ENDPOINT" "URL";
    /// Where Azure tokens are had [default: that of the public cloud]
    azure_authority_host "AZURE_AUTHORITY_HOST" "URL";
}

/// Every setting, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub lease_name: String,
    /// At least 3 s, whole seconds.
    pub lease_duration: Duration,
    /// Less than half of `lease_duration`, whole seconds.
    pub lease_skew: Duration,
    pub metrics_port: u16,
    pub health_port: u16,
    /// `None` is all addresses of the host.
    pub bind_address: Option<IpAddr>,
    pub controller_version: String,
    /// `None` is no `cluster` label.
    pub cluster_name: Option<String>,
    /// In `EnvFilter` syntax, checked.
    pub log_level: String,
    pub log_format: LogFormat,
    pub pod_name: Option<String>,
    /// `None` outside a pod: the namespace of the kubeconfig's context is meant.
    pub pod_namespace: Option<String>,
    pub pod_uid: Option<String>,
    pub node_name: Option<String>,
    pub max_concurrent_reconciles: u16,
    pub max_concurrent_effects: u16,
    /// Calls a second, above 0.
    pub cloud_qps: f64,
    pub cloud_burst: u32,
    /// As it was set; a mutation is bound by [`mutation_timeout`](Self::mutation_timeout).
    pub cloud_timeout: Duration,
    pub cloud_operation_timeout: Duration,
    /// Taint keys; never empty.
    pub disruption_taints: Vec<String>,
    pub watch_label_selector: Option<String>,
    pub controller_mode: ControllerMode,
    pub allow_insecure_endpoint: bool,
    /// `http://…` only on loopback, or where `allow_insecure_endpoint`.
    pub google_compute_custom_endpoint: Option<String>,
    /// As above. `AWS_ENDPOINT_URL` where that of EC2 is not set; the AWS SDK reads the former for its own calls as well.
    pub aws_endpoint_url_ec2: Option<String>,
    /// As above.
    pub azure_resource_manager_endpoint: Option<String>,
    /// As above.
    pub azure_authority_host: Option<String>,
}

/// The shape of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Json,
    /// Version 1's.
    Logfmt,
}

/// What the operator may do, over what each allocation says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControllerMode {
    /// What each allocation's own `mode` says.
    AsWritten,
    /// Every allocation plans and reports only.
    Observe,
}

/// Why there is no [`Command`]. `Display` is what to print: one line, except for the help that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// A variable or its flag has a value that cannot be used.
    #[error("{variable}={value:?} cannot be used: expected {accepted}")]
    Value { variable: &'static str, value: String, accepted: String },
    /// The command line cannot be understood.
    #[error("{0}; see --help")]
    Usage(String),
    /// Help or version was asked for.
    #[error("{0}")]
    Asked(String),
}

impl SettingsError {
    /// 2 for a mistake, to be told on stderr; 0 for the help that was asked for, to be told on stdout.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Value { .. } | Self::Usage(_) => 2,
            Self::Asked(_) => 0,
        }
    }
}

impl Command {
    /// Reads the command line (program name first) and the environment. Pure.
    ///
    /// # Errors
    /// The first thing that cannot be used; nothing was changed by then.
    pub fn parse_from(
        args: impl IntoIterator<Item = OsString>,
        env: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, SettingsError> {
        let Cli { verb, mut flags } = Cli::try_parse_from(args).map_err(|error| complaint(&error))?;
        let settings = |flags: &mut Flags| Settings::read(&mut Source::new(|name| flags.take(name), env));
        match verb.unwrap_or(Verb::Run) {
            Verb::Run => settings(&mut flags).map(Self::Run),
            Verb::Crd => Ok(Self::Crd),
            Verb::Check => settings(&mut flags).map(Self::Check),
            Verb::Release { all, name } => {
                let which = match (all, name) {
                    (true, None) => Released::All,
                    (false, Some(name)) => Released::One(name),
                    _ => {
                        let either = "release needs either --all or the NAME of one allocation";
                        return Err(SettingsError::Usage(either.to_owned()));
                    }
                };
                settings(&mut flags).map(|settings| Self::Release(settings, which))
            }
        }
    }
}

/// Clap explains itself over several lines; the first paragraph of it, joined, is enough.
pub(crate) fn complaint(error: &clap::Error) -> SettingsError {
    let text = error.to_string();
    if !error.use_stderr() {
        return SettingsError::Asked(text.trim_end().to_owned());
    }
    let lines = text.lines().take_while(|line| !line.trim().is_empty()).map(str::trim);
    let line = lines.collect::<Vec<_>>().join(" ");
    SettingsError::Usage(line.strip_prefix("error: ").unwrap_or(&line).to_owned())
}

/// A duration of the command line, in the form that the settings have.
///
/// # Errors
/// The form that would be accepted.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    parse::duration(text).ok_or_else(|| format!("expected {}", parse::DURATION))
}

impl Settings {
    fn read(from: &mut Source<'_>) -> Result<Self, SettingsError> {
        let lease_duration = from.seconds("LEASE_DURATION", 60, 3..=86_400)?;
        let allow_insecure_endpoint = from.boolean("ALLOW_INSECURE_ENDPOINT", false)?;
        let metrics_port = from.number("METRICS_PORT", 9999, 1..=65_535)?;
        let health_port = from.number("HEALTH_PORT", 8080, 1..=65_535)?;
        let aws_endpoint_url = from.endpoint("AWS_ENDPOINT_URL", allow_insecure_endpoint)?;
        if health_port == metrics_port {
            return Err(SettingsError::Value {
                variable: "HEALTH_PORT",
                value: health_port.to_string(),
                accepted: "another port than METRICS_PORT".to_owned(),
            });
        }
        Ok(Self {
            lease_name: from.name("LEASE_NAME")?.unwrap_or_else(|| LEASE_NAME.to_owned()),
            lease_duration,
            lease_skew: skew(from, lease_duration)?,
            metrics_port,
            health_port,
            bind_address: from.ip("BIND_ADDRESS")?,
            controller_version: from
                .text("CONTROLLER_VERSION")?
                .unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned()),
            cluster_name: from.text("CLUSTER_NAME")?,
            log_level: from.log_level("LOG_LEVEL")?.unwrap_or_else(|| "info".to_owned()),
            log_format: from
                .word("LOG_FORMAT", &[("json", LogFormat::Json), ("logfmt", LogFormat::Logfmt)])?
                .unwrap_or(LogFormat::Json),
            pod_name: from.name("POD_NAME")?,
            pod_namespace: from.name("POD_NAMESPACE")?,
            pod_uid: from.text("POD_UID")?,
            node_name: from.name("NODE_NAME")?,
            max_concurrent_reconciles: from.number("MAX_CONCURRENT_RECONCILES", 4, 1..=1_000)?,
            max_concurrent_effects: from.number("MAX_CONCURRENT_EFFECTS", 32, 1..=10_000)?,
            cloud_qps: from.rate("CLOUD_QPS", 5.0)?,
            cloud_burst: from.number("CLOUD_BURST", 10, 1..=100_000)?,
            cloud_timeout: from.duration("CLOUD_TIMEOUT", Duration::from_secs(30))?,
            cloud_operation_timeout: from.duration("CLOUD_OPERATION_TIMEOUT", Duration::from_secs(120))?,
            disruption_taints: from
                .taint_keys("DISRUPTION_TAINTS")?
                .unwrap_or_else(|| DISRUPTION_TAINTS.map(str::to_owned).to_vec()),
            watch_label_selector: from.label_selector("WATCH_LABEL_SELECTOR")?,
            controller_mode: from
                .word("CONTROLLER_MODE", &[("Observe", ControllerMode::Observe)])?
                .unwrap_or(ControllerMode::AsWritten),
            allow_insecure_endpoint,
            google_compute_custom_endpoint: from.endpoint("GOOGLE_COMPUTE_CUSTOM_ENDPOINT", allow_insecure_endpoint)?,
            aws_endpoint_url_ec2: from.endpoint("AWS_ENDPOINT_URL_EC2", allow_insecure_endpoint)?.or(aws_endpoint_url),
            azure_resource_manager_endpoint: from
                .endpoint("AZURE_RESOURCE_MANAGER_ENDPOINT", allow_insecure_endpoint)?,
            azure_authority_host: from.endpoint("AZURE_AUTHORITY_HOST", allow_insecure_endpoint)?,
        })
    }

    /// Limit of one mutating request: what is set, but at most a third of the Lease, since it is sent only while the
    /// proof of leadership outlasts it (F1).
    pub fn mutation_timeout(&self) -> Duration {
        self.cloud_timeout.min(self.lease_duration / 3)
    }

    /// This process's name in the election: `<pod>_<uid>`. Outside a pod `<host>_<uid drawn once>`: two processes of
    /// one host must not pass for one.
    pub fn identity(&self) -> String {
        static DRAWN: OnceLock<Uuid> = OnceLock::new();
        let uid = self.pod_uid.clone().unwrap_or_else(|| DRAWN.get_or_init(Uuid::new_v4).to_string());
        format!("{}_{uid}", self.instance())
    }

    /// The name of this pod, or of this host: label `pod_name` of metrics and `instance` of events.
    pub fn instance(&self) -> String {
        let host = || {
            std::fs::read_to_string("/proc/sys/kernel/hostname")
                .ok()
                .map(|name| name.trim().to_owned())
                .filter(|name| !name.is_empty())
        };
        self.pod_name.clone().or_else(host).unwrap_or_else(|| "localhost".to_owned())
    }
}

/// The skew must leave room in the Lease for a mutation (a third) and the wait for the next renewal (a sixth), or a
/// leader could never prove enough to act. Unset, it gives way to a short duration.
fn skew(from: &mut Source<'_>, duration: Duration) -> Result<Duration, SettingsError> {
    const NAME: &str = "LEASE_SKEW_GRACE_SEC";
    // The largest number of whole seconds below half of the duration.
    let most = (duration.as_secs() - 1) / 2;
    from.number_in_words(NAME, 2.min(most), 0..=most, "whole seconds, less than half of LEASE_DURATION")
        .map(Duration::from_secs)
}
