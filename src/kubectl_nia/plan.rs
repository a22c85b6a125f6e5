//! `kubectl nia plan`: what would happen now, or if. What is supposed, and how what comes of it is told. Pure.

use std::net::IpAddr;

use kube::ResourceExt;

use super::{
    answer,
    cli::If,
    refusal::{Exit, Refusal},
    rehearsal::{Cluster, Outlook, Prospect, Then, UNKNOWN},
    table::{Cell, Paint, Tone, lines},
};
use crate::allocation::claims;

/// The cluster as it would be.
///
/// # Errors
/// What is supposed of a node, an allocation or an address that cannot be.
pub fn suppose(cluster: &Cluster, what: &If) -> Result<Cluster, Refusal> {
    let mut cluster = cluster.clone();
    if let Some(name) = &what.allocation
        && !cluster.allocations.iter().any(|object| object.name_any() == *name)
    {
        let sentence = format!("there is no NetIPAllocation {name}; `kubectl get nia` lists those that are");
        return Err(Refusal::new(Exit::Unknown, sentence));
    }
    let no_node = |name: &str| {
        Refusal::new(Exit::Unknown, format!("there is no node {name}; `kubectl get nodes` lists those that are"))
    };
    for name in &what.drain {
        cluster.drain(name).then_some(()).ok_or_else(|| no_node(name))?;
    }
    for name in &what.lose {
        cluster.lose(name).then_some(()).ok_or_else(|| no_node(name))?;
    }
    for ip in &what.add {
        let allocation = receiver(&cluster, what.allocation.as_deref(), *ip)?;
        cluster.add(&allocation, *ip);
    }
    Ok(cluster)
}

/// The allocation that an added address is for.
fn receiver(cluster: &Cluster, named: Option<&str>, ip: IpAddr) -> Result<String, Refusal> {
    if !ip.is_ipv4() {
        let sentence =
            format!("{ip} is an IPv6 address, and only IPv4 addresses can be kept on nodes; --add one of those");
        return Err(Refusal::new(Exit::Refused, sentence));
    }
    let has = |object: &&crate::api::NetIPAllocation| {
        let mut entries = object.status.iter().flat_map(|status| &status.addresses);
        claims::listed(object).0.contains(&ip) || entries.any(|entry| entry.ip.parse() == Ok(ip))
    };
    if let Some(owner) = cluster.allocations.iter().find(has) {
        let sentence =
            format!("{ip} is an address of NetIPAllocation {} already; plan without --add", owner.name_any());
        return Err(Refusal::new(Exit::Refused, sentence));
    }
    match (named, cluster.allocations.as_slice()) {
        (Some(name), _) => Ok(name.to_owned()),
        (None, [only]) => Ok(only.name_any()),
        (None, []) => {
            Err(Refusal::new(Exit::Unknown, "there is no NetIPAllocation that could have it; apply one first"))
        }
        (None, _) => Err(Refusal::new(
            Exit::Usage,
            "--add needs the allocation's name where there are several: kubectl nia plan NAME --add IP",
        )),
    }
}

/// `If node-a were drained:`, or what happens as things are.
pub fn heading(what: &If) -> String {
    let each = |names: &[String], was: &str| names.iter().map(|name| format!("{name} were {was}")).collect::<Vec<_>>();
    let mut parts = each(&what.drain, "drained");
    parts.extend(each(&what.lose, "lost"));
    parts.extend(what.add.iter().map(|ip| format!("{ip} were added")));
    if parts.is_empty() { "As things are:".to_owned() } else { format!("If {}:", parts.join(" and ")) }
}

/// What comes of the allocations that are asked about. Where something is supposed, an address that stays where it is has no
/// line, unless its node is in question, and an allocation without a line no summary, unless it is named.
pub fn told(outlooks: &[Outlook], what: &If, paint: Paint) -> Vec<String> {
    let mut told = vec![heading(what)];
    let head = ["ADDRESS", "NOW", "THEN", "REASON", "ALLOCATION", "MESSAGE"].map(Cell::plain).to_vec();
    let row = |outlook: &Outlook, prospect: &Prospect| {
        let held = if prospect.held_by.is_some() { " (HELD)" } else { "" };
        let moves = if prospect.held_by.is_some() { Tone::Bad } else { Tone::Moving };
        let then = match &prospect.then {
            Then::Stays => Cell::plain("stays"),
            Then::Goes(node) => Cell { text: format!("{node}{held}"), tone: moves },
            Then::LetGo => Cell { text: format!("let go{held}"), tone: moves },
            Then::Stranded => Cell { text: "NO NODE".to_owned(), tone: Tone::Bad },
            Then::Kept => Cell { text: "KEPT".to_owned(), tone: Tone::Bad },
            Then::Waits => Cell::plain("waits"),
        };
        vec![
            Cell::plain(prospect.ip.to_string()),
            Cell::of(prospect.from.as_deref()),
            then,
            Cell::plain(prospect.reason.as_str()),
            Cell::plain(&outlook.allocation),
            Cell::of(Some(&prospect.message)),
        ]
    };
    let shown = |outlook: &Outlook| -> Vec<Vec<Cell>> {
        let shown = outlook.addresses.iter().filter(|prospect| is_shown(prospect, what));
        shown.map(|prospect| row(outlook, prospect)).collect()
    };
    let body: Vec<Vec<Cell>> = outlooks.iter().flat_map(shown).collect();
    if !body.is_empty() {
        let rows: Vec<Vec<Cell>> = std::iter::once(head).chain(body).collect();
        told.extend(lines(&rows, &mut Vec::new(), paint));
    }
    for outlook in outlooks.iter().filter(|outlook| is_summed(outlook, what)) {
        let name = &outlook.allocation;
        told.push(match &outlook.scope_error {
            Some(why) => format!("{name}: {why}."),
            None => format!("{name}: {}.", summary(outlook)),
        });
    }
    told.push(UNKNOWN.to_owned());
    told
}

fn is_shown(prospect: &Prospect, what: &If) -> bool {
    !what.supposes() || prospect.then != Then::Stays || answer::is_asked_about(prospect, what)
}

fn is_summed(outlook: &Outlook, what: &If) -> bool {
    let changes = || outlook.addresses.iter().any(|prospect| is_shown(prospect, what));
    !what.supposes() || what.allocation.is_some() || outlook.scope_error.is_some() || changes()
}

fn summary(outlook: &Outlook) -> String {
    let count = |which: fn(&Then) -> bool| outlook.addresses.iter().filter(|prospect| which(&prospect.then)).count();
    let moves = count(|then| matches!(then, Then::Goes(_) | Then::LetGo));
    let stranded = count(|then| *then == Then::Stranded);
    let kept = match count(|then| *then == Then::Kept) {
        0 => String::new(),
        kept => format!(", {kept} kept on a node that it must leave"),
    };
    let held = match outlook.addresses.iter().filter(|prospect| prospect.held_by.is_some()).count() {
        0 => String::new(),
        held => format!(", {held} held by pods that do not leave by themselves"),
    };
    let (all, spare) = (outlook.addresses.len(), outlook.spare);
    format!(
        "{moves} of {all} addresses move, {stranded} without a fitting node{kept}{held}, eligible nodes left: {spare}"
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        allocation::decide::{
            placement::Verdict,
            users::{Owner, Pod, Workload},
        },
        api::{AddressStatus, DrainPolicy, Mode},
        kubectl_nia::{
            access::Unread,
            answer::answer,
            rehearsal::{Users, leaving, rehearse, verdicts},
            samples::{attach, ip, labelled, moment, node, nodes, object},
        },
    };

    const A: &str = "203.0.113.7";
    const B: &str = "203.0.113.8";

    /// Two addresses on node-a and node-b of three nodes.
    fn cluster() -> Cluster {
        let mut voip = object("voip", &[A, B]);
        attach(&mut voip, A, "node-a");
        attach(&mut voip, B, "node-b");
        let nodes = nodes(vec![labelled("node-a", "voip", A), labelled("node-b", "voip", B), node("node-c", "voip")]);
        Cluster { allocations: vec![voip], nodes, ..Cluster::default() }
    }

    fn nobody() -> Users {
        let pods = ["node-a", "node-b", "node-c"].map(|node| (node.to_owned(), Vec::new()));
        let workloads = [("voip".to_owned(), Workload::Unnamed)];
        Users { pods: pods.into(), workloads: workloads.into() }
    }

    fn thens(cluster: &Cluster) -> Vec<Then> {
        let outlooks = rehearse(cluster, &nobody(), &moment(0));
        outlooks.iter().flat_map(|outlook| &outlook.addresses).map(|prospect| prospect.then.clone()).collect()
    }

    fn drained(nodes: &[&str]) -> If {
        If { drain: nodes.iter().map(|node| (*node).to_owned()).collect(), ..If::default() }
    }

    #[test]
    fn as_things_are_everything_stays() {
        assert_eq!(thens(&cluster()), [Then::Stays, Then::Stays]);
        assert!(leaving(&cluster(), None, &moment(0)).is_empty());
        assert_eq!(rehearse(&cluster(), &nobody(), &moment(0))[0].spare, 1);
    }

    #[test]
    fn the_address_of_a_drained_node_goes_to_the_spare_one_and_the_cluster_is_left_as_it_was() {
        let now = cluster();
        let then = suppose(&now, &drained(&["node-a"])).unwrap();
        assert_eq!(leaving(&then, None, &moment(0)).into_iter().collect::<Vec<_>>(), ["node-a"]);
        assert_eq!(thens(&then), [Then::Goes("node-c".to_owned()), Then::Stays]);
        assert_eq!(thens(&now), [Then::Stays, Then::Stays], "what is supposed changes a copy");
    }

    #[test]
    fn what_has_nowhere_to_go_is_stranded_and_told_with_the_verdicts() {
        let then = suppose(&cluster(), &drained(&["node-a", "node-c"])).unwrap();
        let outlooks = rehearse(&then, &nobody(), &moment(0));
        assert_eq!(outlooks[0].addresses[0].then, Then::Stranded);
        assert_eq!(outlooks[0].addresses[0].reason.as_str(), "NoTarget");
        let told = told(&outlooks, &drained(&["node-a", "node-c"]), Paint(false)).join("\n");
        assert!(told.starts_with("If node-a were drained and node-c were drained:"), "{told}");
        assert!(told.contains("NO NODE") && told.contains("cordoned"), "{told}");
        assert!(
            told.contains("voip: 0 of 2 addresses move, 1 without a fitting node, eligible nodes left: 0."),
            "{told}"
        );
    }

    /// How `kubectl nia plan` with these words ends.
    fn ends(now: &Cluster, what: &If) -> Exit {
        let outlooks = |cluster: &Cluster| rehearse(cluster, &nobody(), &moment(0));
        let (before, after) = (outlooks(now), outlooks(&suppose(now, what).unwrap()));
        let verdict = answer(&before, &after, what, &[]).verdict(what);
        verdict.err().map_or(Exit::Done, |refusal| refusal.exit)
    }

    #[test]
    fn what_was_stranded_before_is_not_counted_against_the_supposition() {
        let mut now = cluster();
        now.allocations.push(object("fax", &["203.0.113.20"]));
        now.nodes.push(Arc::new(node("node-x", "fax")));
        now.drain("node-x");
        assert_eq!(ends(&now, &If::default()), Exit::Stranded, "as things are it has no node");
        assert_eq!(ends(&now, &drained(&["node-a"])), Exit::Done);
        assert_eq!(ends(&now, &drained(&["node-a", "node-c"])), Exit::Stranded);
    }

    #[test]
    fn an_address_that_cannot_leave_the_node_in_question_counts_also_where_it_could_not_before() {
        let mut now = cluster();
        now.drain("node-a");
        now.drain("node-c");
        assert_eq!(ends(&now, &drained(&["node-a"])), Exit::Stranded);
        assert_eq!(ends(&now, &drained(&["node-c"])), Exit::Done, "no address is there");
    }

    #[test]
    fn an_address_that_the_mode_keeps_on_a_drained_node_counts() {
        for mode in [Mode::Hold, Mode::Observe] {
            let mut now = cluster();
            now.allocations[0].spec.mode = mode;
            assert_eq!(ends(&now, &If::default()), Exit::Done);
            assert_eq!(ends(&now, &drained(&["node-a"])), Exit::Stranded, "{mode:?}");
            assert_eq!(ends(&now, &drained(&["node-c"])), Exit::Done, "no address is there");
            let then = suppose(&now, &drained(&["node-a"])).unwrap();
            assert_eq!(thens(&then), [Then::Kept, Then::Stays]);
            let outlooks = rehearse(&then, &nobody(), &moment(0));
            let told = told(&outlooks, &drained(&["node-a"]), Paint(false)).join("\n");
            assert!(told.contains("KEPT") && told.contains("1 kept on a node that it must leave"), "{told}");
        }
        let mut now = cluster();
        now.allocations[0].spec.mode = Mode::Hold;
        let lost = If { lose: vec!["node-a".to_owned()], ..If::default() };
        assert_eq!(ends(&now, &lost), Exit::Done, "a fault moves it in mode Hold as well");
    }

    #[test]
    fn a_drain_that_is_under_way_stays_where_the_mode_has_stopped_it() {
        let mut now = cluster();
        now.drain("node-a");
        now.allocations[0].spec.mode = Mode::Observe;
        let entry = &mut now.allocations[0].status.as_mut().unwrap().addresses[0];
        entry.state = "Draining".to_owned();
        entry.reason = Some("NodeCordoned".to_owned());
        assert_eq!(ends(&now, &drained(&["node-a"])), Exit::Stranded);
    }

    #[test]
    fn what_cannot_be_told_is_not_taken_for_good() {
        let now = cluster();
        let (drain, add) = (drained(&["node-c"]), If { add: vec![ip("203.0.113.9")], ..If::default() });
        let scoped = rehearse(&suppose(&now, &drain).unwrap(), &nobody(), &moment(0)).remove(0);
        let ended = |outlook: &Outlook, what: &If, unread: &[Unread]| {
            let answer = answer(&[], std::slice::from_ref(outlook), what, unread);
            answer.verdict(what).err().map(|refusal| refusal.exit)
        };
        let failing = Outlook { scope_error: Some("no region".to_owned()), ..scoped.clone() };
        assert_eq!(ended(&failing, &drain, &[]), Some(Exit::Failed));
        assert_eq!(ended(&failing, &add, &[]), None);
        let foreign = Outlook { scope_error: None, unread: vec![A.to_owned()], ..scoped.clone() };
        assert_eq!(ended(&foreign, &drain, &[]), Some(Exit::Failed));
        let whole = Outlook { scope_error: None, unread: Vec::new(), ..scoped };
        assert_eq!(ended(&whole, &drain, &[]), None);
        let unread = [Unread { name: "fax".to_owned(), why: "missing field".to_owned() }];
        assert_eq!(ended(&whole, &drain, &unread), Some(Exit::Failed));
    }

    #[test]
    fn a_lost_node_is_not_waited_for() {
        let what = If { lose: vec!["node-a".to_owned()], ..If::default() };
        let outlooks = rehearse(&suppose(&cluster(), &what).unwrap(), &Users::default(), &moment(0));
        let lost = &outlooks[0].addresses[0];
        assert_eq!((&lost.then, lost.reason.as_str()), (&Then::Goes("node-c".to_owned()), "MachineGone"));
    }

    #[test]
    fn users_that_hold_it_are_told_or_said_to_be_unknown() {
        let then = suppose(&cluster(), &drained(&["node-a"])).unwrap();
        let unknown = rehearse(&then, &Users::default(), &moment(0));
        assert_eq!(unknown[0].addresses[0].then, Then::Goes("node-c".to_owned()));
        assert!(unknown[0].addresses[0].message.contains("reads the pods of node node-a"), "{unknown:?}");
    }

    #[test]
    fn pods_that_do_not_leave_by_themselves_are_told_and_not_counted_against_the_drain() {
        let what = drained(&["node-a"]);
        let pod = |name: &str, kind: &str, hold: bool| Pod {
            namespace: "voip".to_owned(),
            name: name.to_owned(),
            uid: name.to_owned(),
            finished: false,
            ready: true,
            terminating_until: None,
            hold,
            returns: false,
            owner: Some(Owner { kind: kind.to_owned(), name: "sip".to_owned() }),
            gated: true,
            mirror: false,
        };
        let held = |now: &Cluster, pod: Pod| {
            let mut users = nobody();
            users.pods.insert("node-a".to_owned(), vec![pod]);
            let outlooks = rehearse(&suppose(now, &what).unwrap(), &users, &moment(0));
            assert_eq!(answer(&[], &outlooks, &what, &[]).verdict(&what), Ok(()));
            let table = told(&outlooks, &what, Paint(false)).join("\n");
            let held = outlooks[0].addresses[0].held_by.clone();
            assert_eq!(table.contains("node-c (HELD)"), held.is_some(), "{table}");
            assert_eq!(table.contains("1 held by pods that do not leave by themselves"), held.is_some(), "{table}");
            held.unwrap_or_default()
        };
        let mut now = cluster();
        let daemon = "pod voip/sip-1 (DaemonSet, does not leave by itself) runs";
        assert_eq!(held(&now, pod("sip-1", "DaemonSet", false)), daemon);
        assert_eq!(held(&now, pod("sip-1", "Deployment", true)), "pod voip/sip-1 (holds) runs");
        assert_eq!(held(&now, pod("sip-1", "Deployment", false)), "", "kubectl drain evicts it");
        now.allocations[0].spec.drain.policy = DrainPolicy::Evict;
        assert_eq!(held(&now, pod("sip-1", "DaemonSet", false)), "", "it is asked to go");
        assert_eq!(held(&now, pod("sip-1", "DaemonSet", true)), "pod voip/sip-1 (holds) runs");
        now.allocations[0].spec.drain.timeout_seconds = Some(60);
        assert_eq!(held(&now, pod("sip-1", "DaemonSet", true)), "", "there is a deadline");
    }

    #[test]
    fn where_something_is_supposed_only_what_changes_has_a_line_and_what_is_asked_about() {
        let mut now = cluster();
        let mut fax = object("fax", &["203.0.113.20"]);
        attach(&mut fax, "203.0.113.20", "node-x");
        now.allocations.push(fax);
        now.nodes.push(Arc::new(labelled("node-x", "fax", "203.0.113.20")));
        let told = |what: &If| {
            let outlooks = rehearse(&suppose(&now, what).unwrap(), &nobody(), &moment(0));
            told(&outlooks, what, Paint(false))
        };
        let all = told(&If::default());
        assert!(
            [A, B, "203.0.113.20", "fax: 0"].iter().all(|it| all.iter().any(|line| line.starts_with(it))),
            "{all:?}"
        );
        let drain = told(&drained(&["node-a"]));
        let starts: Vec<&str> = drain.iter().filter_map(|line| line.split_whitespace().next()).collect();
        assert_eq!(starts, ["If", "ADDRESS", A, "voip:", "Nothing"], "{drain:?}");
        let empty = told(&drained(&["node-c"]));
        assert_eq!(empty.len(), 2, "heading and what is not known: {empty:?}");
    }

    #[test]
    fn an_added_address_takes_the_spare_node_and_one_too_many_none() {
        let add = |ips: &[&str]| If { add: ips.iter().map(|text| ip(text)).collect(), ..If::default() };
        let then = suppose(&cluster(), &add(&["203.0.113.9"])).unwrap();
        assert_eq!(thens(&then)[2], Then::Goes("node-c".to_owned()));
        let then = suppose(&cluster(), &add(&["203.0.113.9", "203.0.113.10"])).unwrap();
        assert_eq!(thens(&then)[2..], [Then::Goes("node-c".to_owned()), Then::Stranded]);
    }

    #[test]
    fn a_move_that_is_asked_for_goes_where_it_is_asked_to() {
        let mut then = cluster();
        then.nodes.push(Arc::new(node("node-d", "voip")));
        then.ask("voip", "203.0.113.7=node-d");
        assert_eq!(thens(&then), [Then::Goes("node-d".to_owned()), Then::Stays]);
    }

    #[test]
    fn what_the_cloud_did_not_give_is_told_again_as_it_was() {
        for (reason, message) in [
            ("AddressNotFound", "is not reserved in this account; reserve it or take it out of spec.reservedIPs"),
            ("AddressInUse", "is held by forwarding rule lb-1; it is never taken from there"),
            ("WrongRegion", "is reserved in region us-east1; name it in an allocation with that spec.cloud.region"),
        ] {
            let mut now = cluster();
            let entry = AddressStatus {
                ip: "203.0.113.9".to_owned(),
                state: "Unassigned".to_owned(),
                reason: Some(reason.to_owned()),
                message: Some(message.to_owned()),
                ..AddressStatus::default()
            };
            now.allocations[0].status.as_mut().unwrap().addresses.push(entry);
            now.allocations[0].spec.reserved_ips.push("203.0.113.9".to_owned());
            let outlooks = rehearse(&now, &nobody(), &moment(0));
            let told = &outlooks[0].addresses[2];
            assert_eq!((&told.then, told.reason.as_str(), told.message.as_str()), (&Then::Waits, reason, message));
        }
    }

    #[test]
    fn in_mode_observe_nothing_goes() {
        let mut then = suppose(&cluster(), &drained(&["node-a"])).unwrap();
        then.allocations[0].spec.mode = Mode::Observe;
        assert_eq!(thens(&then), [Then::Kept, Then::Stays]);
    }

    #[test]
    fn two_allocations_are_not_told_the_same_node() {
        let mut now = cluster();
        let mut other = object("fax", &["203.0.113.20"]);
        other.spec.node_selector = now.allocations[0].spec.node_selector.clone();
        now.allocations[0].spec.reserved_ips.push("203.0.113.9".to_owned());
        now.allocations.push(other);
        assert_eq!(thens(&now)[2..], [Then::Goes("node-c".to_owned()), Then::Stranded]);
    }

    #[test]
    fn each_node_of_the_pool_has_its_verdict() {
        let mut now = suppose(&cluster(), &drained(&["node-c"])).unwrap();
        now.nodes.push(Arc::new(node("node-x", "another-pool")));
        let told: Vec<_> = verdicts(&now, "voip", &moment(0)).into_iter().map(|node| node.verdict).collect();
        assert_eq!(told, [Verdict::HoldsAddress, Verdict::HoldsAddress, Verdict::Cordoned]);
    }

    #[test]
    fn what_cannot_be_supposed_is_refused_with_what_to_do() {
        let refused = |what: If| suppose(&cluster(), &what).unwrap_err();
        assert_eq!(refused(drained(&["node-z"])).exit, Exit::Unknown);
        assert_eq!(refused(If { allocation: Some("fax".to_owned()), ..If::default() }).exit, Exit::Unknown);
        assert_eq!(refused(If { add: vec![ip(A)], ..If::default() }).exit, Exit::Refused);
        assert_eq!(refused(If { add: vec![ip("2001:db8::1")], ..If::default() }).exit, Exit::Refused);
        let mut two = cluster();
        two.allocations.push(object("fax", &[]));
        let add = If { add: vec![ip("203.0.113.9")], ..If::default() };
        assert_eq!(suppose(&two, &add).unwrap_err().exit, Exit::Usage);
        let named = If { allocation: Some("fax".to_owned()), ..add };
        assert_eq!(suppose(&two, &named).unwrap().allocations[1].spec.reserved_ips, ["203.0.113.9"]);
    }
}
