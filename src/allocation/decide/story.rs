//! The sentences in status: who waits for whom, by name, with absolute UTC times. Changed only when facts change.

use jiff::Timestamp;

use super::{
    facts::{Entry, Facts, NodeObject, Operation, OperationKind, Target, User, Whereabouts},
    leaving::{self, Cause},
    state::Reason,
};

/// `2026-11-22T03:12:07Z`.
pub fn clock(then: Timestamp) -> String {
    then.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// What an open intent does.
pub fn under_way(entry: &Entry, operation: &Operation) -> String {
    let node = entry.node.as_deref().unwrap_or("its node");
    match operation.kind {
        OperationKind::Attach => format!("is being attached to node {node}"),
        OperationKind::Detach => format!("is being taken off node {node}"),
    }
}

/// Why there is no target.
pub fn verdicts(facts: &Facts) -> &str {
    match &facts.target {
        Target::None(verdicts) => verdicts,
        Target::Looking { .. } | Target::Seat { .. } => "",
    }
}

/// What would be done with an address that is on a node, where the mode lets nothing be done.
pub fn plan(entry: &Entry, facts: &Facts) -> String {
    let Some(cause) = leaving::cause(entry, facts) else { return String::new() };
    let next = match &facts.target {
        Target::Looking { node } | Target::Seat { node, .. } => format!("go to node {node}"),
        Target::None(verdicts) if leaving::needs_target(cause, facts) => {
            format!("stay, with no node to go to ({verdicts})")
        }
        Target::None(_) => "be let go".to_owned(),
    };
    format!("; must leave it ({}), would {next}", cause.reason().as_str())
}

/// What is so beside the reason that stands in status.
pub fn beside(cause: Cause, word: Reason) -> String {
    if cause.reason() == word { String::new() } else { format!(" ({})", cause.reason().as_str()) }
}

/// A drain, for whoever reads it at 3 a.m.: what holds it, until when, and where it goes next.
pub fn leaving(cause: Cause, node: &str, entry: &Entry, facts: &Facts) -> String {
    let deadline = match entry.deadline {
        Some(deadline) => format!("leaves at {} whatever runs", clock(deadline)),
        None => "no deadline".to_owned(),
    };
    let next = match &facts.target {
        Target::None(verdicts) if leaving::needs_target(cause, facts) => format!("has no node to go to ({verdicts})"),
        Target::None(_) => "then it is let go".to_owned(),
        Target::Looking { node } | Target::Seat { node, .. } => format!("goes to node {node} next"),
    };
    let holders = match leaving::holders(cause, entry, facts) {
        None => format!("reads the pods of node {node}"),
        Some(holders) if holders.is_empty() => format!("nobody uses it on node {node}"),
        Some(holders) => waits_for(&holders, node),
    };
    format!("{holders}; {deadline}; {next}")
}

fn waits_for(holders: &[&User], node: &str) -> String {
    let owners: std::collections::BTreeSet<&str> = holders.iter().map(|user| user.owner.as_str()).collect();
    let owners: Vec<&str> = owners.into_iter().collect();
    let pods: Vec<String> = holders.iter().take(3).map(|user| format!("{} ({})", user.name, condition(user))).collect();
    let more = holders.len().saturating_sub(3);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let mut text = format!(
        "waits for {} pod{} of {} on node {node}: {}{more}",
        holders.len(),
        if holders.len() == 1 { "" } else { "s" },
        owners.join(", "),
        pods.join(", "),
    );
    if let Some(blocked) = holders.iter().find_map(|user| user.eviction_blocked.as_ref()) {
        text.push_str("; ");
        text.push_str(blocked);
    }
    text
}

/// How a pod stands that uses the address.
pub fn condition(user: &User) -> String {
    match user.terminating_until {
        Some(end) => format!("Terminating, grace ends {}", clock(end)),
        None if user.hold => "holds".to_owned(),
        None if user.daemon => "DaemonSet, does not leave by itself".to_owned(),
        None => "Running".to_owned(),
    }
}

/// What is wrong around an address that stays where it is.
pub fn trouble(node: &str, entry: &Entry, facts: &Facts) -> Option<(Reason, String)> {
    let holder = facts.holder_of(entry)?;
    let since = match &holder.object {
        NodeObject::Absent { since } => Some((*since, "has no Node object")),
        NodeObject::Present(view) => view.not_ready.map(|not_ready| (not_ready.since, "is NotReady")),
    };
    if let Some((since, what)) = since {
        let since_text = clock(since);
        if facts.frozen {
            let text = format!(
                "node {node} {what} since {since_text}, but too many nodes are: failover is frozen until most are back"
            );
            return Some((Reason::FailoverFrozen, text));
        }
        let leaves = since.checked_add(facts.not_ready_grace).map_or_else(|_| "later".to_owned(), clock);
        return Some((
            Reason::NodeNotReady,
            format!("node {node} {what} since {since_text}; leaves it at {leaves} unless it is back before"),
        ));
    }
    match &facts.read.place {
        Whereabouts::Unknown(why) | Whereabouts::Unasked(why) => {
            Some((Reason::CloudUnavailable, format!("is on node {node} as last read; not read since: {why}")))
        }
        Whereabouts::Awaited
        | Whereabouts::Free
        | Whereabouts::On(_)
        | Whereabouts::Foreign(_)
        | Whereabouts::NotFound
        | Whereabouts::OtherRegion(_) => None,
    }
}
