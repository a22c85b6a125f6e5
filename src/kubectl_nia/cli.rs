//! The plugin's command line. Pure.

use std::{ffi::OsString, net::IpAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::settings::{self, SettingsError};

/// `kubectl nia …`.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl-nia",
    bin_name = "kubectl nia",
    version,
    about = "Where reserved addresses are, why, and what would happen next; with your own rights, and without any cloud call",
    after_help = "Without a verb: every address of every NetIPAllocation, one line each.\n\nExample:\n  kubectl nia\n  kubectl nia -o wide --watch"
)]
pub struct Cli {
    #[command(subcommand)]
    pub verb: Option<Verb>,
    #[command(flatten)]
    pub listing: Listing,
    #[command(flatten)]
    pub access: Access,
}

/// How the list is shown.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct Listing {
    /// Form of the list
    #[arg(short, long, value_enum)]
    pub output: Option<Output>,
    /// Go on, and show each address again when something about it changes
    #[arg(short, long)]
    pub watch: bool,
}

/// See [`Listing`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Json,
    Yaml,
    Wide,
}

/// Which cluster, and as whom.
#[derive(Clone, Debug, Default, Args)]
pub struct Access {
    /// Kubeconfig to use [default: $KUBECONFIG, else ~/.kube/config]
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: its current one]
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// Cluster of the kubeconfig [default: the context's]
    #[arg(long, global = true, value_name = "NAME")]
    pub cluster: Option<String>,
    /// User of the kubeconfig [default: the context's]
    #[arg(long, global = true, value_name = "NAME")]
    pub user: Option<String>,
    /// User to impersonate
    #[arg(long = "as", global = true, value_name = "USER")]
    pub impersonate: Option<String>,
    /// Group to impersonate; may be given several times
    #[arg(long = "as-group", global = true, value_name = "GROUP", requires = "impersonate")]
    pub groups: Vec<String>,
    /// For one answer of the cluster, for example 5s or 2m; 0 is without a limit [default: 30s]
    #[arg(long, global = true, value_name = "DURATION", value_parser = patience)]
    pub request_timeout: Option<Duration>,
    /// Accepted and ignored: allocations and nodes are in no namespace
    #[arg(short, long, global = true, value_name = "NAME")]
    #[allow(dead_code, reason = "whoever types it by habit is not to be refused")]
    pub namespace: Option<String>,
    /// Accepted and ignored, for the same reason
    #[arg(short = 'A', long, global = true)]
    #[allow(dead_code, reason = "whoever types it by habit is not to be refused")]
    pub all_namespaces: bool,
}

#[derive(Debug, PartialEq, Subcommand)]
pub enum Verb {
    /// The story of one address: where it is, what it waits for, what speaks against each node, its last move
    #[command(after_help = "Example:\n  kubectl nia why 203.0.113.7")]
    Why { ip: IpAddr },
    /// What would happen now, or if something else were so; changes nothing and asks no cloud
    #[command(after_help = "Example:\n  kubectl nia plan --drain node-a\n  kubectl nia plan voip --add 203.0.113.9")]
    Plan(If),
    /// Move an address now, to the best node or to the one that is named; ends when the operator has answered
    #[command(
        after_help = "Example:\n  kubectl nia move 203.0.113.7 --wait\n  kubectl nia move 203.0.113.7 node-d --wait --timeout 5m"
    )]
    Move(Order),
    /// What has happened to addresses: their last moves, and what the operator has said in events
    #[command(after_help = "Example:\n  kubectl nia history 203.0.113.7")]
    History { ip: Option<IpAddr> },
    /// Take finalizer, labels and taints off without any cloud call: the way out when nothing else is left. Refused while an operator runs
    #[command(
        after_help = "Stop the operator first: scale its Deployment to 0, or helm uninstall. It would put back what is taken off.\n\nExample:\n  kubectl nia release voip"
    )]
    Release {
        /// Every allocation
        #[arg(long, conflicts_with = "name", required_unless_present = "name")]
        all: bool,
        /// The allocation of this name
        name: Option<String>,
    },
    /// Print the script by which kubectl completes what follows `kubectl nia`
    #[command(
        after_help = "Example:\n  kubectl nia completion > ~/bin/kubectl_complete-nia && chmod +x ~/bin/kubectl_complete-nia"
    )]
    Completion,
}

/// What a plan supposes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct If {
    /// Show this allocation only
    pub allocation: Option<String>,
    /// As if this node were cordoned; may be given several times
    #[arg(long, value_name = "NODE")]
    pub drain: Vec<String>,
    /// As if this node and its machine were gone; may be given several times
    #[arg(long, value_name = "NODE")]
    pub lose: Vec<String>,
    /// As if the allocation also named this address, reserved and free; may be given several times
    #[arg(long, value_name = "IP")]
    pub add: Vec<IpAddr>,
}

impl If {
    /// Whether anything is supposed at all.
    pub fn supposes(&self) -> bool {
        let Self { allocation: _, drain, lose, add } = self;
        !(drain.is_empty() && lose.is_empty() && add.is_empty())
    }
}

/// What is to be moved.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Order {
    pub ip: IpAddr,
    /// Where to [default: the node that the operator chooses]
    pub node: Option<String>,
    /// Follow the move until it has ended
    #[arg(long)]
    pub wait: bool,
    /// With --wait: give up after so long, for example 90s or 5m; what has begun goes on, what has not is taken back
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = settings::duration, requires = "wait")]
    pub timeout: Duration,
}

/// As kubectl has it: a number without a unit is seconds, and 0 is for ever.
fn patience(text: &str) -> Result<Duration, String> {
    match text.parse::<u64>() {
        Ok(0) => Ok(Duration::MAX),
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => settings::duration(text),
    }
}

/// Reads the command line, the program's name first.
///
/// # Errors
/// What cannot be understood, in one line; or the help that was asked for.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, SettingsError> {
    let cli = Cli::try_parse_from(args).map_err(|error| settings::complaint(&error))?;
    if cli.verb.is_some() && (cli.listing.output.is_some() || cli.listing.watch) {
        return Err(SettingsError::Usage("--output and --watch are for the list, which has no verb".to_owned()));
    }
    Ok(cli)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn read(line: &str) -> Result<Cli, SettingsError> {
        parse(std::iter::once("kubectl-nia").chain(line.split_whitespace()).map(OsString::from))
    }

    #[test]
    fn nothing_said_is_the_list_and_flags_of_the_cluster_go_with_every_verb() {
        let cli = read("").unwrap();
        assert!(cli.verb.is_none() && cli.listing.output.is_none() && !cli.listing.watch);
        let cli = read("-o wide -w --context prod").unwrap();
        assert_eq!((cli.listing.output, cli.listing.watch), (Some(Output::Wide), true));
        let cli = read("why 203.0.113.7 --context prod --as ann").unwrap();
        assert_eq!(cli.verb, Some(Verb::Why { ip: "203.0.113.7".parse().unwrap() }));
        assert_eq!((cli.access.context.as_deref(), cli.access.impersonate.as_deref()), (Some("prod"), Some("ann")));
    }

    #[test]
    fn what_kubectl_itself_knows_of_the_cluster_is_known_here() {
        let Access { cluster, user, request_timeout, namespace, .. } =
            read("plan --cluster c --user u --request-timeout 5 -n voip").unwrap().access;
        assert_eq!((cluster.as_deref(), user.as_deref(), namespace.as_deref()), (Some("c"), Some("u"), Some("voip")));
        assert_eq!(request_timeout, Some(Duration::from_secs(5)));
        let limit = |text: &str| read(&format!("--request-timeout={text}")).unwrap().access.request_timeout;
        assert_eq!((limit("2m"), limit("0")), (Some(Duration::from_secs(120)), Some(Duration::MAX)));
    }

    #[test]
    fn what_is_typed_by_habit_is_not_refused() {
        for line in ["-A", "--all-namespaces -o json", "plan -A --drain node-a"] {
            assert!(read(line).unwrap().access.all_namespaces, "{line}");
        }
        assert!(read("move 203.0.113.7").is_ok_and(|cli| !cli.access.all_namespaces));
        let helped = |line: &str| matches!(read(line), Err(SettingsError::Asked(help)) if help.contains("Example:"));
        assert!(["help", "help move", "--help", "move --help"].into_iter().all(helped));
    }

    #[test]
    fn a_move_waits_ten_minutes_unless_it_is_told_how_long() {
        let order = |line: &str| match read(line).unwrap().verb {
            Some(Verb::Move(order)) => order,
            other => panic!("{other:?}"),
        };
        let asked = order("move 203.0.113.7 --wait");
        assert_eq!((asked.node, asked.wait, asked.timeout), (None, true, Duration::from_secs(600)));
        let asked = order("move 203.0.113.7 node-d --wait --timeout 90s");
        assert_eq!((asked.node.as_deref(), asked.timeout), (Some("node-d"), Duration::from_secs(90)));
        assert!(!order("move 203.0.113.7").wait);
    }

    #[test]
    fn what_cannot_be_understood_is_one_line() {
        for line in [
            "why",
            "why nonsense",
            "plan --add nonsense",
            "move 203.0.113.7 --wait --timeout soon",
            "move 203.0.113.7 --timeout 5m",
            "plan --request-timeout soon",
            "plan --as-group admins",
            "release",
            "release --all voip",
            "-o xml",
            "-o json why 203.0.113.7",
            "mvoe 203.0.113.7",
        ] {
            let error = read(line).unwrap_err();
            assert_eq!((error.exit_code(), error.to_string().lines().count()), (2, 1), "{line}: {error}");
        }
    }

    #[test]
    fn the_commands_of_the_page_are_understood() {
        let page = include_str!("../../docs/kubectl-nia.md");
        let blocks = page.split("```").skip(1).step_by(2).flat_map(str::lines);
        let commands: Vec<&str> = blocks.filter_map(|line| line.strip_prefix("kubectl nia")).collect();
        assert!(commands.len() > 8, "{commands:?}");
        for command in commands {
            let ours = command.split([';', '|', '>']).next().unwrap_or_default();
            assert!(read(ours).is_ok(), "kubectl nia{command}");
        }
        for verb in Cli::command().get_subcommands() {
            assert!(page.contains(&format!("`kubectl nia {}", verb.get_name())), "{}", verb.get_name());
        }
    }

    #[test]
    fn each_verb_has_an_example_in_its_help() {
        Cli::command().debug_assert();
        for verb in Cli::command().get_subcommands() {
            let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains(&format!("kubectl nia {}", verb.get_name())), "{}: {help}", verb.get_name());
        }
        assert!(matches!(read("--help"), Err(SettingsError::Asked(help)) if help.contains("Usage: kubectl nia")));
    }
}
