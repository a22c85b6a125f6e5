//! Asks for a move and follows it: the request is written, watched, and taken back where nobody takes it up or waits for it any
//! more. What is seen is judged in [`relocation`].

use std::{
    ops::ControlFlow,
    pin::pin,
    time::{Duration, Instant},
};

use futures::StreamExt;
use tokio::{
    select,
    time::{sleep, timeout},
};

use super::{
    access::{self, Session},
    cli::Order,
    history,
    interrupt::Interrupt,
    refusal::{Exit, NETIPALLOCATIONS, Refusal},
    rehearsal::Cluster,
    relocation::{self, Patience, Progress, Request},
    terminal::{Line, Terminal, note, say},
};
use crate::{allocation::moment::Moment, api::NetIPAllocation};

/// So often what is to be written is judged anew because somebody has written in the same moment.
const TRIES: u8 = 3;
/// An event is written beside the pass that it tells of.
const TOLD: Duration = Duration::from_secs(5);
/// What may be there in a moment is looked for so often.
const LOOK: Duration = Duration::from_millis(500);

/// How the move ended, or only its asking.
type End = Result<String, Refusal>;

/// Moves an address.
///
/// # Errors
/// Why it was not asked for, not begun, or has ended otherwise.
pub async fn relocate(session: &Session, order: &Order, terminal: Terminal) -> Result<(), Refusal> {
    let mut interrupt = Interrupt::listen()?;
    let (request, version) = ask(session, order, &mut interrupt).await?;
    let (patience, line) = (Patience::of(order), Line::new(terminal));
    let mut following = Following { session, request, version, patience, line, begun: false };
    following.line.show(&following.request.sentence());
    let end = select! {
        end = following.follow() => end,
        () = interrupt.came() => following.leave(&mut interrupt).await,
    };
    following.line.end();
    say([end?])
}

/// Judges the order and writes the request; with the version that it has made. The operator may write in the same moment:
/// then it is judged anew. A request that is being written is not interrupted: whether it stands would not be known.
async fn ask(session: &Session, order: &Order, interrupt: &mut Interrupt) -> Result<(Request, String), Refusal> {
    let mut again = 0..TRIES;
    loop {
        let request = select! {
            judged = judge(session, order) => judged?,
            () = interrupt.came() => return Err(relocation::unasked()),
        };
        let name = &request.allocation;
        match access::patch(session, name, &request.patch()).await {
            Ok(written) => return Ok((request, written.metadata.resource_version.unwrap_or_default())),
            Err(refusal) if refusal.is_overtaken() && again.next().is_some() => {}
            Err(refusal) if refusal.exit == Exit::Failed => {
                let ip = request.ip;
                let sentence = format!("{refusal}; whether the request stands, `kubectl nia why {ip}` says");
                return Err(Refusal::new(Exit::Failed, sentence));
            }
            Err(refusal) => return Err(refusal),
        }
    }
}

/// What may be asked for. Whoever may not see the answer, or take the request back, is told before anything is written.
async fn judge(session: &Session, order: &Order) -> Result<Request, Refusal> {
    let listed = access::allocations(session).await?;
    listed.unread.iter().for_each(note);
    let cluster = Cluster { allocations: listed.good, nodes: access::nodes(session).await?, ..Cluster::default() };
    let request = relocation::prepare(&cluster, order, &Moment::here())?;
    for verb in ["patch", "get", "watch"] {
        access::may(session, verb, &NETIPALLOCATIONS, Some(&request.allocation)).await?;
    }
    Ok(request)
}

/// A request that was written.
struct Following<'a> {
    session: &'a Session,
    request: Request,
    /// Which the request has made: what the operator says of an earlier one is no answer.
    version: String,
    patience: Patience,
    line: Line,
    begun: bool,
}

impl Following<'_> {
    /// Looks at the move until it has ended, or has been answered where that is all that is asked.
    async fn follow(&mut self) -> End {
        let began = Instant::now();
        let mut sights = pin!(access::sights(self.session, &self.request.allocation));
        loop {
            let limit = match self.patience.end {
                Some(end) if self.begun => end,
                _ => self.patience.answer,
            };
            let seen = match timeout(limit.saturating_sub(began.elapsed()), sights.next()).await {
                Ok(Some(Ok(object))) => match object.map(access::readable).transpose() {
                    Ok(object) => self.seen(object.as_ref()).await,
                    Err(unread) => {
                        let why = Refusal::new(Exit::Failed, unread.to_string());
                        ControlFlow::Break(Err(relocation::lost(&self.request, &why, self.begun)))
                    }
                },
                Ok(Some(Err(error))) => self.missed(&error),
                Ok(None) | Err(_) => self.at_the_limit(limit).await,
            };
            if let ControlFlow::Break(end) = seen {
                return end;
            }
        }
    }

    async fn seen(&mut self, object: Option<&NetIPAllocation>) -> ControlFlow<End> {
        match relocation::progress(&self.request, object, self.begun) {
            Progress::Unheard => ControlFlow::Continue(()),
            Progress::Waits(said) => {
                self.line.show(&said);
                ControlFlow::Continue(())
            }
            Progress::Going(said) => self.under_way(&said),
            Progress::Answered => self.answered().await,
            Progress::Arrived(sentence) => ControlFlow::Break(Ok(sentence)),
            Progress::Ended(refusal) => ControlFlow::Break(Err(refusal)),
        }
    }

    fn under_way(&mut self, said: &str) -> ControlFlow<End> {
        self.begun = true;
        if self.patience.end.is_some() {
            self.line.show(said);
            return ControlFlow::Continue(());
        }
        let (asked, ip) = (self.request.sentence(), self.request.ip);
        let sentence = format!("{asked}, and the operator follows; `kubectl nia why {ip}` says how it goes");
        ControlFlow::Break(Ok(sentence))
    }

    /// A watch that fails is begun anew by itself, unless it is of no use.
    fn missed(&mut self, error: &kube_runtime::watcher::Error) -> ControlFlow<End> {
        match access::lost(error) {
            Some(why) => ControlFlow::Break(Err(relocation::lost(&self.request, &why, self.begun))),
            None => {
                self.line.show(&format!("{}: the cluster does not answer now; asking again", self.request.ip));
                ControlFlow::Continue(())
            }
        }
    }

    /// The operator has answered; its event says how.
    async fn answered(&mut self) -> ControlFlow<End> {
        let Request { ip, allocation, .. } = &self.request;
        let (began, text) = (Instant::now(), self.request.text());
        let mut unseen = format!("`kubectl nia history {ip}` may say why");
        while began.elapsed() < TOLD {
            match access::events(self.session).await {
                Ok(events) => match history::answer(&events, allocation, &text, &self.version) {
                    Some(answer) if answer.accepted => return self.under_way(&answer.note),
                    Some(answer) => {
                        let sentence = format!("the operator refuses: {}", answer.note);
                        return ControlFlow::Break(Err(Refusal::new(Exit::Refused, sentence)));
                    }
                    None => {}
                },
                Err(refusal) if refusal.exit == Exit::Forbidden => {
                    unseen = format!("why is not shown: {refusal}");
                    break;
                }
                Err(_) => {}
            }
            sleep(LOOK).await;
        }
        let sentence = format!("the operator has not moved {ip}; {unseen}");
        ControlFlow::Break(Err(Refusal::new(Exit::Refused, sentence)))
    }

    /// What has begun goes on. What has not is taken back, so that it is not followed when nobody expects it any more.
    async fn at_the_limit(&mut self, limit: Duration) -> ControlFlow<End> {
        if self.begun {
            return ControlFlow::Break(Err(relocation::late(&self.request, limit)));
        }
        match self.surely_take_back().await {
            Ok(Back::Taken(said)) => {
                let refusal = relocation::unanswered(&self.request, said.as_deref(), self.patience);
                ControlFlow::Break(Err(refusal))
            }
            // In this very moment. It is gone on from there.
            Ok(Back::Answered(object)) => self.seen(object.as_deref()).await,
            Err(refusal) => ControlFlow::Break(Err(refusal)),
        }
    }

    /// Somebody does not wait any more: as at the limit, but what has begun is not looked at again. Interrupted once more it
    /// leaves the request where it is.
    async fn leave(&mut self, interrupt: &mut Interrupt) -> End {
        if self.begun {
            return Err(relocation::interrupted(&self.request, true));
        }
        self.line.show("interrupted; the request is being taken back");
        let back = select! {
            back = self.surely_take_back() => back?,
            () = interrupt.came() => return Err(relocation::interrupted(&self.request, false)),
        };
        match back {
            Back::Taken(_) => Err(relocation::withdrawn(&self.request)),
            Back::Answered(object) => match relocation::progress(&self.request, object.as_deref(), false) {
                Progress::Going(_) => Err(relocation::interrupted(&self.request, true)),
                Progress::Arrived(sentence) => Ok(sentence),
                Progress::Ended(refusal) => Err(refusal),
                Progress::Unheard | Progress::Waits(_) | Progress::Answered => {
                    Err(relocation::overtaken(&self.request))
                }
            },
        }
    }

    /// Tries several times, and says where it was of no use.
    async fn surely_take_back(&self) -> Result<Back, Refusal> {
        let mut again = 0..TRIES;
        loop {
            match self.take_back().await {
                Ok(back) => return Ok(back),
                Err(_) if again.next().is_some() => sleep(LOOK).await,
                Err(refusal) => {
                    let sentence = format!("the request stands, it could not be taken back: {refusal}");
                    return Err(Refusal::new(Exit::Failed, sentence));
                }
            }
        }
    }

    /// Takes the request back from the object as it is now, if it stands there and nothing has come of it.
    async fn take_back(&self) -> Result<Back, Refusal> {
        let name = &self.request.allocation;
        let object = access::allocation(self.session, name).await?;
        let said = match relocation::progress(&self.request, object.as_ref(), false) {
            Progress::Unheard => None,
            Progress::Waits(said) => Some(said),
            Progress::Answered | Progress::Going(_) | Progress::Arrived(_) | Progress::Ended(_) => {
                return Ok(Back::Answered(object.map(Box::new)));
            }
        };
        if let Some(object) = object {
            access::patch(self.session, name, &Request::take_back(&object)).await?;
        }
        Ok(Back::Taken(said))
    }
}

/// What came of taking a request back.
enum Back {
    /// Done; with what the operator has said meanwhile.
    Taken(Option<String>),
    /// It stands there no more, or has begun.
    Answered(Option<Box<NetIPAllocation>>),
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use kube::ResourceExt;
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        allocation::api_server::{self, refused},
        api::MOVE_ANNOTATION,
        kubectl_nia::samples::{attach, ip, object},
    };

    const IP: &str = "203.0.113.7";

    /// What somebody is told who interrupts the move while the object is this one, and what was written by then.
    async fn interrupted(object: NetIPAllocation, begun: bool) -> (Refusal, Vec<Value>) {
        let written = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&written);
        let client = api_server::client(move |parts, body| match parts.uri.path() {
            "/apis/netinfra.darkbrains.com/v1alpha1/netipallocations/voip" => {
                if parts.method == "PATCH" {
                    seen.lock().unwrap().push(body);
                }
                (200, json!(object))
            }
            path => (404, refused(404, path)),
        });
        let session = Session::with(client);
        let order = Order { ip: ip(IP), node: None, wait: true, timeout: Duration::from_secs(600) };
        let request = Request {
            allocation: "voip".to_owned(),
            version: Some("7".to_owned()),
            ip: ip(IP),
            from: "node-a".to_owned(),
            to: "node-b".to_owned(),
            named: false,
            leaving: false,
            last_move: None,
        };
        let (patience, line) = (Patience::of(&order), Line::new(Terminal::here()));
        let mut following = Following { session: &session, request, version: "8".to_owned(), patience, line, begun };
        let end = following.leave(&mut Interrupt::listen().unwrap()).await;
        let written = written.lock().unwrap().clone();
        (end.unwrap_err(), written)
    }

    fn voip(request: Option<&str>) -> NetIPAllocation {
        let mut voip = object("voip", &[IP]);
        attach(&mut voip, IP, "node-a");
        if let Some(request) = request {
            voip.annotations_mut().insert(MOVE_ANNOTATION.to_owned(), request.to_owned());
        }
        voip
    }

    #[tokio::test]
    async fn who_does_not_wait_for_the_answer_takes_the_request_back() {
        let (refusal, written) = interrupted(voip(Some(IP)), false).await;
        assert_eq!(refusal.exit, Exit::Interrupted);
        assert!(refusal.sentence.contains("was taken back and nothing was moved"), "{refusal}");
        assert_eq!(written.len(), 1, "{written:?}");
        assert!(written[0]["metadata"]["annotations"][MOVE_ANNOTATION].is_null(), "{written:?}");
        assert_eq!(written[0]["metadata"]["resourceVersion"], "7", "what has changed meanwhile is looked at again");
    }

    #[tokio::test]
    async fn what_was_answered_or_has_begun_goes_on_and_that_is_said() {
        for (request, begun, said) in [
            (Some(IP), true, "the move goes on"),
            (None, false, "was answered in this moment"),
            (Some("203.0.113.8"), false, "was answered in this moment"),
        ] {
            let (refusal, written) = interrupted(voip(request), begun).await;
            assert_eq!(refusal.exit, Exit::Interrupted);
            assert!(refusal.sentence.contains(said) && written.is_empty(), "{refusal} {written:?}");
        }
    }
}
