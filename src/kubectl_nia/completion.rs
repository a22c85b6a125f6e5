//! What may follow on the command line. kubectl runs `kubectl_complete-nia WORD… LAST` for every shell that it completes
//! in, and reads a candidate a line, then `:` and a number: 4 says that no file name is meant.

use super::cli::Access;

/// The script that kubectl looks for as `kubectl_complete-nia`; the program itself under that name does as well.
pub const SCRIPT: &str = "#!/bin/sh\n# What kubectl completes after `kubectl nia`; to be kept in PATH as kubectl_complete-nia.\nexec kubectl-nia __complete \"$@\"\n";

/// After the candidates.
pub const NO_FILES: &str = ":4";

/// What is to be completed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// One of these words.
    Words(Vec<&'static str>),
    Addresses,
    Nodes,
    Allocations,
    Nothing,
}

const VERBS: [&str; 6] = ["why", "plan", "move", "history", "release", "completion"];
/// Options of every verb. They take a value, as those of [`VALUED`] do.
const EVERYWHERE: [&str; 8] =
    ["--kubeconfig", "--context", "--cluster", "--user", "--as", "--as-group", "--request-timeout", "--namespace"];
/// Options of every verb without one.
const FLAGS: [&str; 2] = ["--all-namespaces", "--help"];
/// The others whose value is the next word, where it does not follow after `=`.
const VALUED: [&str; 7] = ["-n", "-o", "--output", "--drain", "--lose", "--add", "--timeout"];

fn takes_a_value(option: &str) -> bool {
    EVERYWHERE.contains(&option) || VALUED.contains(&option)
}

/// By the words before the last one, which is being typed.
pub fn wanted(words: &[String]) -> Wanted {
    let Some((last, before)) = words.split_last() else { return Wanted::Words(VERBS.to_vec()) };
    let previous = before.last().map(String::as_str);
    match previous {
        Some("-o" | "--output") => return Wanted::Words(vec!["json", "yaml", "wide"]),
        Some("--drain" | "--lose") => return Wanted::Nodes,
        Some(option) if takes_a_value(option) => return Wanted::Nothing,
        _ => {}
    }
    let mut plain: Vec<&str> = Vec::new();
    let mut is_value = false;
    for word in before {
        if !is_value && !word.starts_with('-') {
            plain.push(word);
        }
        is_value = !is_value && takes_a_value(word);
    }
    if last.starts_with('-') {
        let own: &[&'static str] = match plain.first() {
            None => &["--output", "--watch", "--version"],
            Some(&"plan") => &["--drain", "--lose", "--add"],
            Some(&"move") => &["--wait", "--timeout"],
            Some(&"release") => &["--all"],
            Some(_) => &[],
        };
        return Wanted::Words(own.iter().chain(&EVERYWHERE).chain(&FLAGS).copied().collect());
    }
    match plain.as_slice() {
        [] => Wanted::Words(VERBS.to_vec()),
        ["why" | "move" | "history"] => Wanted::Addresses,
        ["move", _] => Wanted::Nodes,
        ["plan" | "release"] => Wanted::Allocations,
        _ => Wanted::Nothing,
    }
}

/// The cluster that the words mean, and as whom: its names are the candidates. The last word is still being typed.
pub fn access(words: &[String]) -> Access {
    let mut access = Access::default();
    let mut before = words.split_last().map_or(&[][..], |(_, before)| before).iter();
    while let Some(word) = before.next() {
        let (option, value) = match word.split_once('=') {
            Some((option, value)) => (option, value.to_owned()),
            None if takes_a_value(word) => match before.next() {
                Some(value) => (word.as_str(), value.clone()),
                None => break,
            },
            None => continue,
        };
        match option {
            "--kubeconfig" => access.kubeconfig = Some(value.into()),
            "--context" => access.context = Some(value),
            "--cluster" => access.cluster = Some(value),
            "--user" => access.user = Some(value),
            "--as" => access.impersonate = Some(value),
            "--as-group" => access.groups.push(value),
            _ => {}
        }
    }
    access
}

/// Those candidates that go on as it was begun, and kubectl's last line.
pub fn answer(candidates: impl IntoIterator<Item = String>, words: &[String]) -> Vec<String> {
    let begun = words.last().map(String::as_str).unwrap_or_default();
    let fitting = candidates.into_iter().filter(|candidate| candidate.starts_with(begun));
    fitting.chain(std::iter::once(NO_FILES.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::kubectl_nia::cli::Cli;

    fn at(line: &str) -> Wanted {
        wanted(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn verbs_addresses_nodes_and_allocations_are_completed_where_they_belong() {
        assert_eq!(at(""), Wanted::Words(VERBS.to_vec()));
        assert_eq!(at("--context prod mo"), Wanted::Words(VERBS.to_vec()));
        assert_eq!(at("why 203"), Wanted::Addresses);
        assert_eq!(at("move "), Wanted::Addresses);
        assert_eq!(at("move 203.0.113.7 no"), Wanted::Nodes);
        assert_eq!(at("move --wait 203.0.113.7 "), Wanted::Nodes);
        assert_eq!(at("plan --drain "), Wanted::Nodes);
        assert_eq!(at("plan --drain node-a "), Wanted::Allocations);
        assert_eq!(at("plan voip --add "), Wanted::Nothing);
        assert_eq!(at("-o "), Wanted::Words(vec!["json", "yaml", "wide"]));
        assert_eq!(at("release "), Wanted::Allocations);
        assert_eq!(at("why 203.0.113.7 "), Wanted::Nothing);
    }

    #[test]
    fn the_words_are_those_of_the_command_line() {
        let command = Cli::command();
        let verbs: Vec<&str> = command.get_subcommands().map(|verb| verb.get_name()).collect();
        assert_eq!(verbs, VERBS);
        for verb in command.get_subcommands() {
            let Wanted::Words(words) = at(&format!("{} --", verb.get_name())) else { panic!("no words") };
            for option in verb.get_arguments().filter_map(|option| option.get_long()) {
                assert!(words.contains(&format!("--{option}").as_str()), "{}: --{option}", verb.get_name());
            }
        }
        let Wanted::Words(words) = at("--") else { panic!("no words") };
        for option in command.get_arguments().filter_map(|option| option.get_long()) {
            assert!(words.contains(&format!("--{option}").as_str()), "--{option}");
        }
    }

    #[test]
    fn the_cluster_is_the_one_that_the_words_mean_in_either_spelling() {
        let of = |line: &str| access(&line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        let told = of("--context prod --kubeconfig=/k/config --as ann --as-group=a --as-group b plan --drain no");
        assert_eq!(told.kubeconfig.as_deref(), Some(std::path::Path::new("/k/config")));
        assert_eq!((told.context.as_deref(), told.impersonate.as_deref()), (Some("prod"), Some("ann")));
        assert_eq!(told.groups, ["a", "b"]);
        let told = of("plan --cluster=c --user u --drain --context --context pr");
        assert_eq!((told.cluster.as_deref(), told.user.as_deref()), (Some("c"), Some("u")));
        assert_eq!(told.context, None, "a value, and a word that is being typed");
    }

    #[test]
    fn only_what_goes_on_as_it_was_begun_is_answered() {
        let told = answer(["node-a", "other"].map(str::to_owned), &["move".to_owned(), "no".to_owned()]);
        assert_eq!(told, ["node-a", ":4"]);
    }
}
