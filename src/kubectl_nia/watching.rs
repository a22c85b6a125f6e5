//! `kubectl nia --watch`: the list, and then what changes.

use std::{collections::BTreeSet, pin::pin};

use futures::TryStreamExt;
use jiff::Timestamp;
use kube::{Api, ResourceExt};
use kube_runtime::{WatchStreamExt, watcher};

use super::{
    access::{self, Session, Unread},
    cli::{Listing, Output},
    list::{self, Row, Shown},
    printed,
    refusal::{NETIPALLOCATIONS, Refusal},
    terminal::{Terminal, note, say},
};
use crate::allocation::watch::Guarded;

/// The list, and then what changes, until it is interrupted. JSON is one document a line, YAML one after `---`.
///
/// # Errors
/// The first list failed, or a later one or the watch is refused. What else fails is tried again.
pub async fn watch(session: &Session, listing: Listing, terminal: Terminal) -> Result<(), Refusal> {
    let api: Api<Guarded> = Api::all(session.client.clone());
    let mut stream = pin!(watcher(api, watcher::Config::default()).default_backoff());
    let (mut seen, mut screen) = (Seen::default(), Screen { listing, terminal, widths: Vec::new(), first: true });
    let mut fails = false;
    loop {
        let event = match stream.try_next().await {
            Ok(Some(event)) => event,
            Ok(None) => return Ok(()),
            Err(watcher::Error::InitialListFailed(error)) if !seen.whole => {
                return Err(Refusal::of("list", &NETIPALLOCATIONS, &error));
            }
            Err(error) => match access::lost(&error) {
                Some(refusal) => return Err(refusal),
                None => {
                    if !fails {
                        note(format!("The watch fails, and is tried again: {error}."));
                    }
                    fails = true;
                    continue;
                }
            },
        };
        // That it is asked again proves nothing.
        fails = fails && matches!(event, watcher::Event::Init);
        let is_first = !seen.whole;
        let news = seen.event(event);
        if is_first && seen.whole && news.is_empty() {
            note(list::NOTHING);
        }
        if !news.is_empty() {
            screen.show(&news)?;
        }
    }
}

/// What was seen so far.
#[derive(Default)]
struct Seen {
    shown: Shown,
    initial: Vec<Guarded>,
    /// The first list was.
    whole: bool,
    unread: BTreeSet<String>,
}

impl Seen {
    /// The rows that are new.
    fn event(&mut self, event: watcher::Event<Guarded>) -> Vec<Row> {
        match event {
            watcher::Event::Init => {
                self.initial.clear();
                Vec::new()
            }
            watcher::Event::InitApply(object) => {
                self.initial.push(object);
                Vec::new()
            }
            watcher::Event::InitDone => {
                self.whole = true;
                let there: BTreeSet<String> = self.initial.iter().map(ResourceExt::name_any).collect();
                let gone: Vec<String> = self.shown.names().difference(&there).cloned().collect();
                let mut news: Vec<Row> = gone.iter().flat_map(|name| self.shown.news(name, None)).collect();
                for object in std::mem::take(&mut self.initial) {
                    news.extend(self.object(object));
                }
                news
            }
            watcher::Event::Apply(object) => self.object(object),
            watcher::Event::Delete(object) => {
                self.unread.remove(&object.name_any());
                self.shown.news(&object.name_any(), None)
            }
        }
    }

    /// One that cannot be read is named once, until it can.
    fn object(&mut self, object: Guarded) -> Vec<Row> {
        match access::readable(object) {
            Ok(object) => {
                self.unread.remove(&object.name_any());
                self.shown.news(&object.name_any(), Some(list::rows(&object)))
            }
            Err(unread) => {
                if self.tells(&unread) {
                    note(unread);
                }
                Vec::new()
            }
        }
    }

    fn tells(&mut self, unread: &Unread) -> bool {
        self.unread.insert(unread.name.clone())
    }
}

/// Where the rows go to, and how.
struct Screen {
    listing: Listing,
    terminal: Terminal,
    widths: Vec<usize>,
    first: bool,
}

impl Screen {
    fn show(&mut self, news: &[Row]) -> Result<(), Refusal> {
        match self.listing.output {
            Some(Output::Json) => news.iter().try_for_each(|row| say([printed(serde_json::to_string(row))?])),
            Some(Output::Yaml) => {
                news.iter().try_for_each(|row| say(["---".to_owned(), printed(serde_yaml::to_string(row))?]))
            }
            None | Some(Output::Wide) => {
                let wide = self.listing.output == Some(Output::Wide);
                let lines = list::table(news, wide, Timestamp::now(), self.terminal.paint, &mut self.widths);
                let head = usize::from(!std::mem::take(&mut self.first));
                say(lines.into_iter().skip(head))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::core::{DeserializeGuard, error_boundary::InvalidObject};

    use super::*;
    use crate::kubectl_nia::samples::object;

    fn good(name: &str, ips: &[&str]) -> Guarded {
        DeserializeGuard(Ok(object(name, ips)))
    }

    fn addresses(news: &[Row]) -> Vec<(&str, Option<&str>)> {
        news.iter().map(|row| (row.address.as_str(), row.state.as_deref())).collect()
    }

    #[test]
    fn a_list_that_is_made_anew_shows_what_has_changed_and_what_is_gone() {
        let mut seen = Seen::default();
        let list = |seen: &mut Seen, objects: Vec<Guarded>| {
            let mut news = seen.event(watcher::Event::Init);
            objects.into_iter().for_each(|object| news.extend(seen.event(watcher::Event::InitApply(object))));
            assert!(news.is_empty(), "nothing is shown before the list is whole");
            seen.event(watcher::Event::InitDone)
        };
        let news = list(&mut seen, vec![good("voip", &["203.0.113.7"]), good("fax", &["203.0.113.8"])]);
        assert_eq!(addresses(&news), [("203.0.113.7", None), ("203.0.113.8", None)]);
        let news = list(&mut seen, vec![good("voip", &["203.0.113.7", "203.0.113.9"])]);
        assert_eq!(addresses(&news), [("203.0.113.8", Some("Gone")), ("203.0.113.9", None)]);
    }

    #[test]
    fn an_object_that_cannot_be_read_is_told_once_until_it_can() {
        let mut seen = Seen::default();
        let unread = Unread { name: "voip".to_owned(), why: "missing field".to_owned() };
        assert!(seen.tells(&unread) && !seen.tells(&unread));
        let mut metadata = object("voip", &[]).metadata;
        metadata.uid = None;
        let bad = DeserializeGuard(Err(InvalidObject { error: "missing field".to_owned(), metadata }));
        assert!(seen.event(watcher::Event::Apply(bad)).is_empty());
        seen.event(watcher::Event::Apply(good("voip", &["203.0.113.7"])));
        assert!(seen.tells(&unread));
    }
}
