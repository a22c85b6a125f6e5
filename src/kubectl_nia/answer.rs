//! What a plan answers: whether that can be done which is supposed, in one sentence, and how the program ends. Pure.

use std::net::IpAddr;

use super::{
    access::Unread,
    cli::If,
    refusal::{Exit, Refusal},
    rehearsal::{Outlook, Prospect, Then},
};

/// So many addresses are named in a sentence.
const NAMED: usize = 3;

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer<'a> {
    /// These would have nowhere to go, or stay on a node that they must leave.
    Stuck(Vec<&'a Prospect>),
    /// What comes of every address cannot be told, for this reason.
    Untold(String),
    Fits,
}

/// Judges a plan. `now`: what comes of the same allocations as things are. `unread`: objects that could not be read.
///
/// Of what is supposed counts what it makes worse, and every address of a node that is to be drained or lost: that one
/// cannot leave before either is no excuse.
pub fn answer<'a>(now: &[Outlook], then: &'a [Outlook], what: &If, unread: &[Unread]) -> Answer<'a> {
    let left = left(what);
    let was = |outlook: &Outlook, ip: IpAddr| {
        let same = now.iter().filter(|before| before.allocation == outlook.allocation);
        same.flat_map(|before| &before.addresses).any(|before| before.ip == ip && is_stuck(before))
    };
    let counts = |outlook: &Outlook, prospect: &Prospect| match what.supposes() {
        false => prospect.then == Then::Stranded,
        true => is_stuck(prospect) && (leaves(prospect, &left) || !was(outlook, prospect.ip)),
    };
    let prospects = then.iter().flat_map(|outlook| outlook.addresses.iter().map(move |it| (outlook, it)));
    let stuck: Vec<&Prospect> =
        prospects.filter(|(outlook, prospect)| counts(outlook, prospect)).map(|(_, prospect)| prospect).collect();
    if !stuck.is_empty() {
        return Answer::Stuck(stuck);
    }
    let untold = if left.is_empty() { None } else { unread.first().map(ToString::to_string).or_else(|| untold(then)) };
    untold.map_or(Answer::Fits, Answer::Untold)
}

impl Answer<'_> {
    /// How the plan ends.
    ///
    /// # Errors
    /// An address would have nowhere to go, or stay on a node that it must leave; or that cannot be told.
    pub fn verdict(&self, what: &If) -> Result<(), Refusal> {
        match self {
            Self::Fits => Ok(()),
            Self::Untold(why) => {
                let sentence = format!("what would come of every address cannot be told: {why}");
                Err(Refusal::new(Exit::Failed, sentence))
            }
            Self::Stuck(_) if what.supposes() => Err(Refusal::new(
                Exit::Stranded,
                "an address would have no fitting node, or stay on one that it must leave; the lines above say which",
            )),
            Self::Stuck(_) => {
                Err(Refusal::new(Exit::Stranded, "an address has no fitting node; the lines above say which"))
            }
        }
    }

    /// The answer to what is supposed, if anything is.
    pub fn sentence(&self, then: &[Outlook], what: &If) -> Option<String> {
        if !what.supposes() {
            return None;
        }
        let of = what.allocation.as_ref().map(|name| format!("For {name} alone: ")).unwrap_or_default();
        Some(match self {
            Self::Stuck(stuck) => format!("{of}{}: {}.", done(what, "cannot"), listed(stuck, is_stuck_where)),
            Self::Untold(why) => format!("{of}Whether {} cannot be told: {why}.", done(what, "can")),
            Self::Fits => format!("{of}{}: {}.", done(what, "can"), because(then, what)),
        })
    }
}

/// Whether the address is on a node that is to be drained or lost.
pub fn is_asked_about(prospect: &Prospect, what: &If) -> bool {
    leaves(prospect, &left(what))
}

fn left(what: &If) -> Vec<&String> {
    what.drain.iter().chain(&what.lose).collect()
}

fn leaves(prospect: &Prospect, left: &[&String]) -> bool {
    prospect.from.as_ref().is_some_and(|node| left.contains(&node))
}

fn is_stuck(prospect: &Prospect) -> bool {
    matches!(prospect.then, Then::Stranded | Then::Kept)
}

fn untold(outlooks: &[Outlook]) -> Option<String> {
    outlooks.iter().find_map(|outlook| {
        let name = &outlook.allocation;
        let scope = outlook.scope_error.as_ref().map(|why| format!("NetIPAllocation {name}: {why}"));
        scope.or_else(|| {
            let ip = outlook.unread.first()?;
            Some(format!("status of NetIPAllocation {name} has {ip} in a form that this version does not know"))
        })
    })
}

/// `node-a can be drained and 203.0.113.9 can be added`.
fn done(what: &If, can: &str) -> String {
    let each =
        |names: &[String], be: &str| names.iter().map(|name| format!("{name} {can} be {be}")).collect::<Vec<_>>();
    let mut parts = each(&what.drain, "drained");
    parts.extend(each(&what.lose, "lost"));
    parts.extend(what.add.iter().map(|ip| format!("{ip} {can} be added")));
    parts.join(" and ")
}

fn because(then: &[Outlook], what: &If) -> String {
    let left = left(what);
    let prospects = || then.iter().flat_map(|outlook| &outlook.addresses);
    let leaving: Vec<&Prospect> = prospects().filter(|prospect| leaves(prospect, &left)).collect();
    let added: Vec<&Prospect> = prospects().filter(|prospect| what.add.contains(&prospect.ip)).collect();
    let goes = |prospect: &&&Prospect| matches!(prospect.then, Then::Goes(_) | Then::LetGo);
    let mut reasons = Vec::new();
    let (they, their) = if left.len() > 1 { ("they have", "their") } else { ("it has", "its") };
    match leaving.iter().filter(goes).count() {
        _ if left.is_empty() => {}
        0 if leaving.is_empty() => reasons.push(format!("{they} no reserved address")),
        0 => {}
        1 => reasons.push(format!("{their} address has somewhere to go")),
        many => reasons.push(format!("{their} {many} addresses have somewhere to go")),
    }
    let fitting: Vec<&Prospect> = added.iter().filter(goes).copied().collect();
    if !fitting.is_empty() {
        reasons.push(listed(&fitting, |prospect| format!("{} has a node to go to", prospect.ip)));
    }
    let idle: Vec<&Prospect> = leaving.iter().chain(&added).filter(|it| !goes(it)).copied().collect();
    if !idle.is_empty() {
        reasons.push(listed(&idle, |prospect| format!("for now {} {}", prospect.ip, prospect.message)));
    }
    let held: Vec<&Prospect> = leaving.iter().filter(|prospect| prospect.held_by.is_some()).copied().collect();
    if !held.is_empty() {
        let by = |prospect: &Prospect| {
            format!("{} stays as long as {}", prospect.ip, prospect.held_by.as_deref().unwrap_or_default())
        };
        reasons.push(format!("but that does not end by itself, because {}", listed(&held, by)));
    }
    reasons.join("; ")
}

fn is_stuck_where(prospect: &Prospect) -> String {
    let ip = prospect.ip;
    match (&prospect.then, &prospect.from) {
        (Then::Kept, Some(node)) => format!("{ip} would stay on node {node}, which it must leave"),
        _ => format!("{ip} would have no fitting node"),
    }
}

fn listed(prospects: &[&Prospect], words: impl Fn(&Prospect) -> String) -> String {
    let named = prospects.iter().take(NAMED).map(|prospect| words(prospect)).collect::<Vec<_>>().join(", ");
    match prospects.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named}, and so for {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{allocation::decide::state::Reason, kubectl_nia::samples::ip};

    fn prospect(address: &str, from: &str, then: Then) -> Prospect {
        Prospect {
            ip: ip(address),
            from: Some(from.to_owned()).filter(|from| !from.is_empty()),
            then,
            reason: Reason::NodeCordoned,
            message: "is being attached to node node-a".to_owned(),
            held_by: None,
        }
    }

    fn outlook(addresses: Vec<Prospect>) -> Outlook {
        Outlook {
            allocation: "voip".to_owned(),
            addresses,
            spare: 1,
            scope_error: None,
            refused_move: None,
            unread: Vec::new(),
        }
    }

    fn drained(nodes: &[&str]) -> If {
        If { drain: nodes.iter().map(|node| (*node).to_owned()).collect(), ..If::default() }
    }

    /// The sentence where these addresses come of it, and nothing was stuck before.
    fn said(addresses: Vec<Prospect>, what: &If) -> String {
        let then = [outlook(addresses)];
        let answer = answer(&[], &then, what, &[]);
        assert_eq!(answer.verdict(what).is_ok(), !matches!(answer, Answer::Stuck(_)));
        answer.sentence(&then, what).unwrap()
    }

    fn goes() -> Then {
        Then::Goes("node-c".to_owned())
    }

    #[test]
    fn a_node_can_be_drained_where_its_addresses_have_somewhere_to_go() {
        let (a, b) = (drained(&["node-a"]), drained(&["node-a", "node-b"]));
        let one = || prospect("203.0.113.7", "node-a", goes());
        let stays = || prospect("203.0.113.8", "node-b", Then::Stays);
        assert_eq!(said(vec![one(), stays()], &a), "node-a can be drained: its address has somewhere to go.");
        assert_eq!(said(vec![stays()], &a), "node-a can be drained: it has no reserved address.");
        assert_eq!(
            said(vec![one(), prospect("203.0.113.8", "node-b", Then::LetGo)], &b),
            "node-a can be drained and node-b can be drained: their 2 addresses have somewhere to go."
        );
        let named = If { allocation: Some("voip".to_owned()), ..a.clone() };
        assert_eq!(said(Vec::new(), &named), "For voip alone: node-a can be drained: it has no reserved address.");
        let arriving = said(vec![prospect("203.0.113.7", "node-a", Then::Stays)], &a);
        assert_eq!(arriving, "node-a can be drained: for now 203.0.113.7 is being attached to node node-a.");
    }

    #[test]
    fn a_drain_that_does_not_end_by_itself_is_said_to_be_none_that_does() {
        let held = Some("pod voip/sip-x (holds) runs".to_owned());
        let one = Prospect { held_by: held, ..prospect("203.0.113.7", "node-a", goes()) };
        assert_eq!(
            said(vec![one], &drained(&["node-a"])),
            "node-a can be drained: its address has somewhere to go; but that does not end by itself, because 203.0.113.7 stays \
             as long as pod voip/sip-x (holds) runs."
        );
    }

    #[test]
    fn what_is_against_it_is_named_also_where_another_address_suffers() {
        let lost = If { lose: vec!["node-a".to_owned()], ..If::default() };
        let one = || prospect("203.0.113.7", "node-a", Then::Stranded);
        assert_eq!(said(vec![one()], &lost), "node-a cannot be lost: 203.0.113.7 would have no fitting node.");
        let kept = prospect("203.0.113.8", "node-b", Then::Kept);
        assert_eq!(
            said(vec![prospect("203.0.113.7", "node-a", goes()), kept], &drained(&["node-a"])),
            "node-a cannot be drained: 203.0.113.8 would stay on node node-b, which it must leave."
        );
        let many = (1..=5).map(|n| prospect(&format!("203.0.113.{n}"), "node-a", Then::Stranded)).collect();
        assert!(said(many, &lost).ends_with("203.0.113.3 would have no fitting node, and so for 2 more."));
    }

    #[test]
    fn an_address_can_be_added_where_a_node_is_there_for_it() {
        let add = If { add: vec![ip("203.0.113.9")], ..If::default() };
        let goes = said(vec![prospect("203.0.113.9", "", goes())], &add);
        assert_eq!(goes, "203.0.113.9 can be added: 203.0.113.9 has a node to go to.");
        let waits = Prospect { message: "waits".to_owned(), ..prospect("203.0.113.9", "", Then::Waits) };
        assert_eq!(said(vec![waits], &add), "203.0.113.9 can be added: for now 203.0.113.9 waits.");
    }

    #[test]
    fn nothing_is_claimed_of_what_cannot_be_told_and_nothing_answered_where_nothing_is_asked() {
        let then = [Outlook { unread: vec!["203.0.113.7".to_owned()], ..outlook(Vec::new()) }];
        let what = drained(&["node-a"]);
        let told = answer(&[], &then, &what, &[]).sentence(&then, &what).unwrap();
        assert!(
            told.starts_with("Whether node-a can be drained cannot be told: status of NetIPAllocation voip"),
            "{told}"
        );
        assert_eq!(Answer::Fits.sentence(&then, &If::default()), None);
    }
}
