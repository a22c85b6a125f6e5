//! `kubectl nia`: this program under the name by which kubectl finds a plugin.
//!
//! ```text
//! cli ─▶ access (the user's rights) ─▶ list, why, plan, relocation, history (pure: objects in, lines out) ─▶ terminal
//!                                 └▶ watching, following (what is seen while something goes on)
//! ```
//!
//! Decides nothing of its own: what would happen is asked of the operator's own round ([`rehearsal`]). Makes no cloud call,
//! and changes nothing but the annotation by which a move is asked for; `release` is the command of the same name
//! ([`letting_go`]).

mod access;
mod answer;
mod cli;
mod completion;
mod following;
mod history;
mod interrupt;
mod letting_go;
mod list;
mod plan;
pub mod refusal;
mod rehearsal;
mod relocation;
#[cfg(test)]
mod samples;
mod table;
mod terminal;
mod users;
mod watching;
mod why;

use std::{
    ffi::{OsStr, OsString},
    net::IpAddr,
    path::Path,
    process::ExitCode,
    time::Duration,
};

use jiff::Timestamp;
use kube::ResourceExt;
use tokio::time::timeout;

use self::{
    access::{Session, Unread},
    cli::{If, Listing, Output, Verb},
    completion::Wanted,
    list::{Document, Row},
    refusal::{Exit, Refusal},
    rehearsal::Cluster,
    terminal::{Terminal, note, say},
};
use crate::{allocation::moment::Moment, api::NetIPAllocation, settings::Released};

/// Whoever completes a word waits no longer.
const COMPLETION: Duration = Duration::from_secs(2);

/// As what the program was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Called {
    /// `kubectl-nia`
    Plugin,
    /// `kubectl_complete-nia`
    Completion,
}

/// By the name of the program, the first of its arguments; `None` is the operator.
pub fn called(program: Option<&OsString>) -> Option<Called> {
    let name = Path::new(program?).file_name().and_then(OsStr::to_str)?;
    if name.starts_with("kubectl_complete-nia") {
        Some(Called::Completion)
    } else if name.starts_with("kubectl-nia") {
        Some(Called::Plugin)
    } else {
        None
    }
}

/// Does what the arguments say, and says how it ended.
pub async fn main(called: Called, args: Vec<OsString>) -> ExitCode {
    let is_completion = called == Called::Completion || args.get(1).is_some_and(|word| word == "__complete");
    if is_completion {
        let skip = if called == Called::Completion { 1 } else { 2 };
        let words: Vec<String> = args.iter().skip(skip).map(|word| word.to_string_lossy().into_owned()).collect();
        // What cannot be completed is no error: the user is still typing.
        return ended(complete(&words).await);
    }
    let cli = match cli::parse(args) {
        Ok(cli) => cli,
        Err(error) if error.exit_code() == 0 => return ended(say([error.to_string()])),
        Err(error) => return ended(Err(Refusal::new(Exit::Usage, error.to_string()))),
    };
    let terminal = Terminal::here();
    ended(run(cli, terminal).await)
}

fn ended(result: Result<(), Refusal>) -> ExitCode {
    let Err(Refusal { exit, sentence }) = result else { return ExitCode::SUCCESS };
    if !sentence.is_empty() {
        note(sentence);
    }
    ExitCode::from(exit.code())
}

async fn run(cli: cli::Cli, terminal: Terminal) -> Result<(), Refusal> {
    if cli.verb == Some(Verb::Completion) {
        return say([completion::SCRIPT.trim_end().to_owned()]);
    }
    let session = access::connect(&cli.access).await?;
    match cli.verb {
        None if cli.listing.watch => watching::watch(&session, cli.listing, terminal).await,
        None => list(&session, cli.listing, terminal).await,
        Some(Verb::Why { ip }) => why(&session, ip, terminal).await,
        Some(Verb::Plan(what)) => plan(&session, &what, terminal).await,
        Some(Verb::Move(order)) => following::relocate(&session, &order, terminal).await,
        Some(Verb::History { ip }) => history(&session, ip, terminal).await,
        Some(Verb::Release { all, name }) => {
            let which = match name {
                Some(name) if !all => Released::One(name),
                _ => Released::All,
            };
            letting_go::let_go(&session, &which).await
        }
        Some(Verb::Completion) => Ok(()),
    }
}

/// Every allocation that can be read; of the others one line each on stderr.
async fn allocations(session: &Session) -> Result<Vec<NetIPAllocation>, Refusal> {
    let listed = access::allocations(session).await?;
    listed.unread.iter().for_each(note);
    Ok(listed.good)
}

async fn list(session: &Session, listing: Listing, terminal: Terminal) -> Result<(), Refusal> {
    let listed = access::allocations(session).await?;
    listed.unread.iter().for_each(note);
    listed.good.iter().filter_map(why::unseen).for_each(|said| note(format!("Note that {said}.")));
    let rows: Vec<Row> = listed.good.iter().flat_map(list::rows).collect();
    let heard = match listing.output {
        Some(Output::Json) => say([printed(serde_json::to_string_pretty(&Document { addresses: &rows }))?]),
        Some(Output::Yaml) => say([printed(serde_yaml::to_string(&Document { addresses: &rows }))?]),
        None | Some(Output::Wide) if rows.is_empty() => {
            // Of those that cannot be read nobody knows what they name.
            if listed.unread.is_empty() {
                note(list::NOTHING);
            }
            Ok(())
        }
        None | Some(Output::Wide) => {
            let wide = listing.output == Some(Output::Wide);
            say(list::table(&rows, wide, Timestamp::now(), terminal.paint, &mut Vec::new()))
        }
    };
    whole(&listed.unread).and(heard)
}

/// A list that lacks something does not pass for all there is.
fn whole(unread: &[Unread]) -> Result<(), Refusal> {
    match unread.len() {
        0 => Ok(()),
        1 => Err(Refusal::new(Exit::Failed, "the list lacks the addresses of 1 NetIPAllocation that cannot be read")),
        n => Err(Refusal::new(
            Exit::Failed,
            format!("the list lacks the addresses of {n} NetIPAllocations that cannot be read"),
        )),
    }
}

async fn why(session: &Session, ip: IpAddr, terminal: Terminal) -> Result<(), Refusal> {
    let all = allocations(session).await?;
    let found = why::find(&all, ip)?;
    let name = found.object.name_any();
    let others: Vec<&NetIPAllocation> = all.iter().filter(|other| other.name_any() != name).collect();
    let moment = Moment::here();
    let verdicts = match access::nodes(session).await {
        Ok(nodes) => {
            let cluster = Cluster { allocations: all.clone(), nodes, ..Cluster::default() };
            Ok(rehearsal::verdicts(&cluster, &name, &moment))
        }
        Err(refusal) => Err(refusal),
    };
    say(why::story(found, &others, verdicts.as_deref(), moment.now, terminal.paint))
}

async fn plan(session: &Session, what: &If, terminal: Terminal) -> Result<(), Refusal> {
    let listed = access::allocations(session).await?;
    listed.unread.iter().for_each(note);
    let now = Cluster { allocations: listed.good, nodes: access::nodes(session).await?, ..Cluster::default() };
    let then = plan::suppose(&now, what)?;
    let moment = Moment::here();
    let (users, unknown) = users::of(session, &then, what.allocation.as_deref(), &moment).await;
    let is_asked = |name: &String| what.allocation.as_ref().is_none_or(|asked| asked == name);
    let [before, after] = [&now, &then].map(|cluster| {
        let mut outlooks = rehearsal::rehearse(cluster, &users, &moment);
        outlooks.retain(|outlook| is_asked(&outlook.allocation));
        outlooks
    });
    let answer = answer::answer(&before, &after, what, &listed.unread);
    let verdict = answer.verdict(what);
    if listed.unread.is_empty() && then.allocations.iter().all(|object| list::rows(object).is_empty()) {
        note(list::NOTHING);
        return verdict;
    }
    let unseen = now.allocations.iter().filter(|object| is_asked(&object.name_any())).filter_map(why::unseen);
    let unseen = unseen.map(|said| format!("Note that {said}."));
    let told = plan::told(&after, what, terminal.paint).into_iter().chain(unseen).chain(unknown);
    let heard = say(told.chain(answer.sentence(&after, what)));
    // Whoever has read enough is told the verdict all the same.
    verdict.and(heard)
}

async fn history(session: &Session, ip: Option<IpAddr>, terminal: Terminal) -> Result<(), Refusal> {
    let all = allocations(session).await?;
    let events = access::events(session).await;
    say(history::told(&all, events.as_deref(), ip, terminal.paint)?)
}

async fn complete(words: &[String]) -> Result<(), Refusal> {
    let candidates = match completion::wanted(words) {
        Wanted::Words(known) => known.into_iter().map(str::to_owned).collect(),
        Wanted::Nothing => Vec::new(),
        from_cluster => {
            let known = timeout(COMPLETION, known(&from_cluster, &completion::access(words))).await;
            known.map(Result::unwrap_or_default).unwrap_or_default()
        }
    };
    say(completion::answer(candidates, words))
}

async fn known(wanted: &Wanted, access: &cli::Access) -> Result<Vec<String>, Refusal> {
    let session = access::connect(access).await?;
    match wanted {
        Wanted::Nodes => Ok(access::nodes(&session).await?.iter().map(|node| node.name_any()).collect()),
        Wanted::Allocations => {
            Ok(access::allocations(&session).await?.good.iter().map(ResourceExt::name_any).collect())
        }
        Wanted::Addresses => {
            let all = access::allocations(&session).await?.good;
            Ok(all.iter().flat_map(list::rows).map(|row| row.address).collect())
        }
        Wanted::Words(_) | Wanted::Nothing => Ok(Vec::new()),
    }
}

/// A document without the line's end, which printing adds.
fn printed<E: std::fmt::Display>(document: Result<String, E>) -> Result<String, Refusal> {
    let failed = |error| Refusal::new(Exit::Failed, format!("what was read cannot be printed: {error}"));
    document.map(|text| text.trim_end().to_owned()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_the_program_says_what_it_is() {
        let called = |name: &str| called(Some(&OsString::from(name)));
        assert_eq!(called("/usr/local/bin/kubectl-nia"), Some(Called::Plugin));
        assert_eq!(called("kubectl-nia.exe"), Some(Called::Plugin));
        assert_eq!(called("./kubectl_complete-nia"), Some(Called::Completion));
        assert_eq!(called("/ip-address-controller"), None);
        assert_eq!(called("/kubectl-nia/ip-address-controller"), None);
        assert_eq!(super::called(None), None);
    }

    #[test]
    fn a_list_that_lacks_something_is_no_whole_one() {
        assert_eq!(whole(&[]), Ok(()));
        let unread = Unread { name: "voip".to_owned(), why: "missing field".to_owned() };
        assert_eq!(whole(&[unread]).unwrap_err().exit, Exit::Failed);
    }
}
