//! `kubectl nia`: this program under the name by which kubectl finds a plugin.
//!
//! ```text
//! cli ─▶ access (the user's rights) ─▶ list, why, plan, relocation, history (pure: objects in, lines out) ─▶ terminal
//! ```
//!
//! Decides nothing of its own: what would happen is asked of the operator's own round ([`rehearsal`]). Makes no cloud call,
//! and changes nothing but the annotation by which a move is asked for; `release` is the command of the same name.

mod access;
mod cli;
mod completion;
mod history;
mod list;
mod plan;
pub mod refusal;
mod rehearsal;
mod relocation;
#[cfg(test)]
mod samples;
mod table;
mod why;

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    io::{IsTerminal, Write},
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::TryStreamExt;
use jiff::Timestamp;
use kube::{Api, Client, ResourceExt};
use kube_runtime::watcher;

use self::{
    cli::{If, Listing, Order, Output, Verb},
    completion::Wanted,
    list::{Document, Row, Shown},
    refusal::{Exit, NETIPALLOCATIONS, NODES, PODS, Refusal},
    rehearsal::{Cluster, Users},
    relocation::{Progress, Request},
    table::Paint,
};
use crate::{
    allocation::{decide::users::Workload, moment::Moment, observe::pods::Pods, watch::Guarded},
    api::NetIPAllocation,
    release,
    settings::Released,
};

/// A move is looked at so often.
const LOOK: Duration = Duration::from_millis(500);
/// An operator answers a move within a pass, and after a change of leader within the Lease and its take-over.
const ANSWER: Duration = Duration::from_secs(120);
/// So often an order is judged anew because the operator has written in the same moment.
const TRIES: u8 = 3;
/// An event is written beside the pass that it tells of.
const TOLD: Duration = Duration::from_secs(5);

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
        // Nobody to tell is no reason to fail otherwise.
        let _ = writeln!(std::io::stderr(), "{sentence}");
    }
    ExitCode::from(exit.code())
}

/// What the output goes to.
#[derive(Clone, Copy, Debug)]
struct Terminal {
    paint: Paint,
    /// Whether a line may be written over.
    progress: bool,
}

impl Terminal {
    fn here() -> Self {
        // The convention of no-color.org.
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { paint: Paint(!plain && std::io::stdout().is_terminal()), progress: std::io::stderr().is_terminal() }
    }
}

/// Prints lines. Whoever stopped reading (`| head`) has seen enough.
fn say(lines: impl IntoIterator<Item = String>) -> Result<(), Refusal> {
    let mut out = std::io::stdout().lock();
    let written = lines.into_iter().try_for_each(|line| writeln!(out, "{line}")).and_then(|()| out.flush());
    written.map_err(|_| Refusal::unheard())
}

async fn run(cli: cli::Cli, terminal: Terminal) -> Result<(), Refusal> {
    if cli.verb == Some(Verb::Completion) {
        return say([completion::SCRIPT.trim_end().to_owned()]);
    }
    let client = access::connect(&cli.access).await?;
    match cli.verb {
        None if cli.listing.watch => watch(&client, cli.listing, terminal).await,
        None => list(&client, cli.listing, terminal).await,
        Some(Verb::Why { ip }) => why(&client, ip, terminal).await,
        Some(Verb::Plan(what)) => plan(&client, &what, terminal).await,
        Some(Verb::Move(order)) => relocate(&client, &order, terminal).await,
        Some(Verb::History { ip }) => history(&client, ip, terminal).await,
        Some(Verb::Release { all, name }) => {
            let which = match name {
                Some(name) if !all => Released::One(name),
                _ => Released::All,
            };
            let_go(&client, &which).await
        }
        Some(Verb::Completion) => Ok(()),
    }
}

/// Every allocation that can be read; of the others one line each on stderr.
async fn allocations(client: &Client) -> Result<Vec<NetIPAllocation>, Refusal> {
    let (good, bad) = access::allocations(client).await?;
    for sentence in bad {
        let _ = writeln!(std::io::stderr(), "{sentence}");
    }
    Ok(good)
}

async fn list(client: &Client, listing: Listing, terminal: Terminal) -> Result<(), Refusal> {
    let rows: Vec<Row> = allocations(client).await?.iter().flat_map(list::rows).collect();
    match listing.output {
        Some(Output::Json) => say([printed(serde_json::to_string_pretty(&Document { addresses: &rows }))?]),
        Some(Output::Yaml) => say([printed(serde_yaml::to_string(&Document { addresses: &rows }))?]),
        None | Some(Output::Wide) if rows.is_empty() => say(["No NetIPAllocation names an address.".to_owned()]),
        None | Some(Output::Wide) => {
            let wide = listing.output == Some(Output::Wide);
            say(list::table(&rows, wide, Timestamp::now(), terminal.paint, &mut Vec::new()))
        }
    }
}

/// The list, and then what changes, until it is interrupted. JSON is one document a line, YAML one after `---`.
async fn watch(client: &Client, listing: Listing, terminal: Terminal) -> Result<(), Refusal> {
    let api: Api<Guarded> = Api::all(client.clone());
    let (mut shown, mut widths, mut first) = (Shown::default(), Vec::new(), true);
    let mut initial: Vec<Guarded> = Vec::new();
    let mut stream = std::pin::pin!(watcher(api, watcher::Config::default()));
    loop {
        let event = match stream.try_next().await {
            Ok(Some(event)) => event,
            Ok(None) => return Ok(()),
            // A list that is refused stays refused; a watch that ended is begun anew by the stream itself.
            Err(watcher::Error::InitialListFailed(error)) => {
                return Err(Refusal::of("list", &NETIPALLOCATIONS, &error));
            }
            Err(watcher::Error::WatchStartFailed(error)) if is_denial(&error) => {
                return Err(Refusal::of("watch", &NETIPALLOCATIONS, &error));
            }
            Err(_) => {
                tokio::time::sleep(LOOK).await;
                continue;
            }
        };
        let mut news: Vec<Row> = Vec::new();
        match event {
            watcher::Event::Init => initial.clear(),
            watcher::Event::InitApply(object) => initial.push(object),
            watcher::Event::InitDone => {
                let there: BTreeSet<String> = initial.iter().map(ResourceExt::name_any).collect();
                for name in shown.names().difference(&there) {
                    news.extend(shown.news(name, None));
                }
                for object in initial.drain(..) {
                    news.extend(seen(&mut shown, &object));
                }
            }
            watcher::Event::Apply(object) => news.extend(seen(&mut shown, &object)),
            watcher::Event::Delete(object) => news.extend(shown.news(&object.name_any(), None)),
        }
        if news.is_empty() {
            continue;
        }
        match listing.output {
            Some(Output::Json) => {
                for row in &news {
                    say([printed(serde_json::to_string(row))?])?;
                }
            }
            Some(Output::Yaml) => {
                for row in &news {
                    say(["---".to_owned(), printed(serde_yaml::to_string(row))?])?;
                }
            }
            None | Some(Output::Wide) => {
                let wide = listing.output == Some(Output::Wide);
                let lines = list::table(&news, wide, Timestamp::now(), terminal.paint, &mut widths);
                say(lines.into_iter().skip(usize::from(!first)))?;
                first = false;
            }
        }
    }
}

async fn why(client: &Client, ip: std::net::IpAddr, terminal: Terminal) -> Result<(), Refusal> {
    let all = allocations(client).await?;
    let found = why::find(&all, ip)?;
    let name = found.object.name_any();
    let others: Vec<&NetIPAllocation> = all.iter().filter(|other| other.name_any() != name).collect();
    let moment = Moment::here();
    let verdicts = match access::nodes(client).await {
        Ok(nodes) => {
            let cluster = Cluster { allocations: all.clone(), nodes, ..Cluster::default() };
            Ok(rehearsal::verdicts(&cluster, &name, &moment))
        }
        Err(refusal) => Err(refusal),
    };
    say(why::story(found, &others, verdicts.as_deref(), moment.now, terminal.paint))
}

async fn plan(client: &Client, what: &If, terminal: Terminal) -> Result<(), Refusal> {
    let now =
        Cluster { allocations: allocations(client).await?, nodes: access::nodes(client).await?, ..Cluster::default() };
    let then = plan::suppose(&now, what)?;
    let moment = Moment::here();
    let (users, unknown) = users(client, &then, &moment).await;
    let outlooks = rehearsal::rehearse(&then, &users, &moment);
    let asked: Vec<_> = outlooks
        .iter()
        .filter(|outlook| what.allocation.as_ref().is_none_or(|name| *name == outlook.allocation))
        .collect();
    say(plan::told(&asked, what, terminal.paint))?;
    say(unknown)?;
    if asked.iter().any(|outlook| plan::is_stranded(outlook)) {
        return Err(Refusal::new(
            Exit::Stranded,
            "an address would be without a fitting node; the lines above say which",
        ));
    }
    Ok(())
}

/// Who uses the addresses that would leave, and one sentence for each thing that cannot be known.
async fn users(client: &Client, cluster: &Cluster, moment: &Moment) -> (Users, Vec<String>) {
    let pods = Pods::new(client.clone(), Arc::new(|| ()));
    let (mut users, mut unknown) = (Users::default(), Vec::new());
    let leaving = rehearsal::leaving(cluster, moment);
    if leaving.is_empty() {
        return (users, unknown);
    }
    if let Err(refusal) = access::may(client, "list", &PODS).await {
        unknown.push(format!("Who uses the addresses is not known: {refusal}."));
        return (users, unknown);
    }
    for object in &cluster.allocations {
        let named = object.spec.workload();
        let workload = pods.workload(named.as_ref(), true).await;
        if let (Workload::Unknown, Some(named)) = (&workload, named) {
            unknown.push(format!("{named} cannot be read, so its pods are not known."));
        }
        users.workloads.insert(object.name_any(), workload);
    }
    for node in leaving {
        match pods.live(&node).await {
            Ok(known) => {
                users.pods.insert(node, known);
            }
            Err(why) => unknown.push(format!("What holds an address on node {node} is not known: {why}.")),
        }
    }
    (users, unknown)
}

async fn relocate(client: &Client, order: &Order, terminal: Terminal) -> Result<(), Refusal> {
    if order.wait {
        access::may(client, "get", &NETIPALLOCATIONS).await?;
    }
    let moment = Moment::here();
    let request = ask(client, order).await?;
    let Request { ip, from, to, .. } = &request;
    let asked = format!("{ip} is asked to move from node {from} to node {to}");
    if !order.wait {
        return say([format!("{asked}; `kubectl nia why {ip}` says how it goes")]);
    }
    let mut line = Line::new(terminal);
    line.show(&asked);
    let result = follow(client, &request, order.timeout, &moment, &mut line).await;
    line.end();
    say([result?])
}

/// Judges the order and writes the request. The operator may write in the same moment: then it is judged anew.
async fn ask(client: &Client, order: &Order) -> Result<Request, Refusal> {
    let mut again = 0..TRIES;
    loop {
        let allocations = allocations(client).await?;
        let cluster = Cluster { allocations, nodes: access::nodes(client).await?, ..Cluster::default() };
        let request = relocation::prepare(&cluster, order, &Moment::here())?;
        match access::patch(client, &request.allocation, &request.patch()).await {
            Ok(_) => return Ok(request),
            Err(refusal) if refusal.is_overtaken() && again.next().is_some() => {}
            Err(refusal) => return Err(refusal),
        }
    }
}

/// Looks at the move until it has ended; the sentence of its end.
async fn follow(
    client: &Client,
    request: &Request,
    limit: Duration,
    asked: &Moment,
    line: &mut Line,
) -> Result<String, Refusal> {
    let (began, mut left, mut heard) = (Instant::now(), false, false);
    loop {
        let object = access::allocation(client, &request.allocation).await?;
        match relocation::progress(request, object.as_ref(), left) {
            Progress::Arrived(sentence) => return Ok(sentence),
            Progress::Ended(refusal) => return Err(refusal),
            Progress::Answered => return Err(refused(client, request, asked).await),
            Progress::Going(said) => {
                heard = true;
                left = left || !said.starts_with(&format!("{} Attached", request.ip));
                line.show(&said);
            }
            Progress::Unheard => {
                if !heard && began.elapsed() >= ANSWER.min(limit) {
                    return Err(unanswered(client, request, object.as_ref(), ANSWER.min(limit)).await);
                }
            }
        }
        if began.elapsed() >= limit {
            let sentence = format!(
                "{} has not arrived after {} s; the move goes on, `kubectl nia why {}` says what it waits for",
                request.ip,
                limit.as_secs(),
                request.ip
            );
            return Err(Refusal::new(Exit::TimedOut, sentence));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The operator refused; its event says why.
async fn refused(client: &Client, request: &Request, asked: &Moment) -> Refusal {
    let began = Instant::now();
    // Events are to the second, and by the operator's clock.
    let since = asked.now.checked_sub(jiff::SignedDuration::from_secs(60)).unwrap_or(asked.now);
    while began.elapsed() < TOLD {
        let Ok(events) = access::events(client).await else { break };
        if let Some(said) = history::refusal_of_move(&events, &request.allocation, &request.text(), since) {
            return Refusal::new(Exit::Refused, format!("the operator refuses: {said}"));
        }
        tokio::time::sleep(LOOK).await;
    }
    let ip = request.ip;
    let sentence = format!("the operator has not moved {ip}; `kubectl nia history {ip}` may say why");
    Refusal::new(Exit::Refused, sentence)
}

/// Nobody has looked at the request: it is taken back, so that it is not followed when nobody expects it any more.
async fn unanswered(client: &Client, request: &Request, object: Option<&NetIPAllocation>, waited: Duration) -> Refusal {
    let back = match object.and_then(|object| request.take_back(object)) {
        Some(patch) => access::patch(client, &request.allocation, &patch).await.map(|_| ()),
        None => Ok(()),
    };
    let (exit, end) = match back {
        Ok(()) => (Exit::NotInstalled, "the request was taken back and nothing was moved".to_owned()),
        Err(refusal) => (Exit::Failed, format!("the request stands, it could not be taken back: {refusal}")),
    };
    let sentence = format!(
        "no operator has answered in {} s: none runs, it is too old for moves, or it does not serve this allocation \
         (CONTROLLER_MODE, WATCH_LABEL_SELECTOR); {end}; kubectl get lease -A shows who leads",
        waited.as_secs()
    );
    Refusal::new(exit, sentence)
}

/// What goes on, on stderr: one line that is written over on a terminal, elsewhere a line for each change.
struct Line {
    progress: bool,
    last: String,
}

impl Line {
    fn new(terminal: Terminal) -> Self {
        Self { progress: terminal.progress, last: String::new() }
    }

    fn show(&mut self, text: &str) {
        if self.last == text {
            return;
        }
        let mut err = std::io::stderr();
        let _ = if self.progress {
            // A line that is wider than the terminal could not be written over.
            let short: String = text.chars().take(78).collect();
            write!(err, "\r\x1b[K{short}")
        } else {
            writeln!(err, "{text}")
        };
        let _ = err.flush();
        text.clone_into(&mut self.last);
    }

    fn end(&self) {
        if self.progress {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

async fn history(client: &Client, ip: Option<std::net::IpAddr>, terminal: Terminal) -> Result<(), Refusal> {
    let all = allocations(client).await?;
    if let Some(ip) = ip {
        why::find(&all, ip)?;
    }
    let events = access::events(client).await;
    say(history::told(&all, events.as_deref(), ip, terminal.paint))
}

/// Every right is asked for first: half a release would be worse than none.
async fn let_go(client: &Client, which: &Released) -> Result<(), Refusal> {
    let all = allocations(client).await?;
    if let Released::One(name) = which
        && !all.iter().any(|object| object.name_any() == *name)
    {
        let sentence = format!("there is no NetIPAllocation {name}; `kubectl get nia` lists those that are");
        return Err(Refusal::new(Exit::Unknown, sentence));
    }
    for (verb, kind) in
        [("list", NODES), ("get", NODES), ("patch", NODES), ("get", NETIPALLOCATIONS), ("patch", NETIPALLOCATIONS)]
    {
        access::may(client, verb, &kind).await?;
    }
    release::with(client, which).await.map_err(|error| Refusal::new(Exit::Failed, error))
}

async fn complete(words: &[String]) -> Result<(), Refusal> {
    let candidates = match completion::wanted(words) {
        Wanted::Words(known) => known.into_iter().map(str::to_owned).collect(),
        Wanted::Nothing => Vec::new(),
        from_cluster => known(&from_cluster).await.unwrap_or_default(),
    };
    say(completion::answer(candidates, words))
}

async fn known(wanted: &Wanted) -> Result<Vec<String>, Refusal> {
    let client = access::connect(&cli::Access::default()).await?;
    match wanted {
        Wanted::Nodes => Ok(access::nodes(&client).await?.iter().map(|node| node.name_any()).collect()),
        Wanted::Allocations => Ok(access::allocations(&client).await?.0.iter().map(ResourceExt::name_any).collect()),
        Wanted::Addresses => {
            let all = access::allocations(&client).await?.0;
            Ok(all.iter().flat_map(list::rows).map(|row| row.address).collect())
        }
        Wanted::Words(_) | Wanted::Nothing => Ok(Vec::new()),
    }
}

/// What is new in this version of an allocation; of one that cannot be read nothing is.
fn seen(shown: &mut Shown, object: &Guarded) -> Vec<Row> {
    object.0.as_ref().map_or_else(|_| Vec::new(), |object| shown.news(&object.name_any(), Some(list::rows(object))))
}

/// A document without the line's end, which printing adds.
fn printed<E: std::fmt::Display>(document: Result<String, E>) -> Result<String, Refusal> {
    let failed = |error| Refusal::new(Exit::Failed, format!("what was read cannot be printed: {error}"));
    document.map(|text| text.trim_end().to_owned()).map_err(failed)
}

fn is_denial(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 401 | 403))
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
}
