//! `kubectl nia plan`: what would happen now, or if. What is supposed, and how what comes of it is told. Pure.

use std::net::IpAddr;

use kube::ResourceExt;

use super::{
    access::Unread,
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

/// What comes of the allocations that are asked about.
pub fn told(outlooks: &[Outlook], what: &If, paint: Paint) -> Vec<String> {
    let mut told = vec![heading(what)];
    let head = ["ADDRESS", "NOW", "THEN", "REASON", "ALLOCATION", "MESSAGE"].map(Cell::plain).to_vec();
    let row = |outlook: &Outlook, prospect: &Prospect| {
        let then = match &prospect.then {
            Then::Stays => Cell::plain("stays"),
            Then::Goes(node) => Cell { text: node.clone(), tone: Tone::Moving },
            Then::LetGo => Cell { text: "let go".to_owned(), tone: Tone::Moving },
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
    let body = outlooks.iter().flat_map(|outlook| outlook.addresses.iter().map(|prospect| row(outlook, prospect)));
    let rows: Vec<Vec<Cell>> = std::iter::once(head).chain(body).collect();
    told.extend(lines(&rows, &mut Vec::new(), paint));
    for outlook in outlooks {
        let name = &outlook.allocation;
        told.push(match &outlook.scope_error {
            Some(why) => format!("{name}: {why}."),
            None => format!("{name}: {}.", summary(outlook)),
        });
    }
    told.push(UNKNOWN.to_owned());
    told
}

fn summary(outlook: &Outlook) -> String {
    let count = |which: fn(&Then) -> bool| outlook.addresses.iter().filter(|prospect| which(&prospect.then)).count();
    let moves = count(|then| matches!(then, Then::Goes(_) | Then::LetGo));
    let stranded = count(|then| *then == Then::Stranded);
    let kept = match count(|then| *then == Then::Kept) {
        0 => String::new(),
        kept => format!(", {kept} kept on a node that it must leave"),
    };
    let (all, spare) = (outlook.addresses.len(), outlook.spare);
    format!("{moves} of {all} addresses move, {stranded} without a fitting node{kept}, eligible nodes left: {spare}")
}

/// How the plan ends. `now`: what comes of the same allocations as things are. `unread`: objects that could not be read.
///
/// Of what is supposed counts what it makes worse, and every address of a node that is to be drained or lost: that one
/// cannot leave before either is no excuse.
///
/// # Errors
/// An address would have nowhere to go, or stay on a node that it must leave; or that cannot be told.
pub fn verdict(now: &[Outlook], then: &[Outlook], what: &If, unread: &[Unread]) -> Result<(), Refusal> {
    let supposed = *what != If { allocation: what.allocation.clone(), ..If::default() };
    let left: Vec<&String> = what.drain.iter().chain(&what.lose).collect();
    let was = |outlook: &Outlook, ip: IpAddr| {
        let same = now.iter().filter(|before| before.allocation == outlook.allocation);
        same.flat_map(|before| &before.addresses).any(|before| before.ip == ip && is_stuck(before))
    };
    let counts = |outlook: &Outlook, prospect: &Prospect| match supposed {
        false => prospect.then == Then::Stranded,
        true => {
            let leaves = prospect.from.as_ref().is_some_and(|node| left.contains(&node));
            is_stuck(prospect) && (leaves || !was(outlook, prospect.ip))
        }
    };
    let mut prospects = then.iter().flat_map(|outlook| outlook.addresses.iter().map(move |it| (outlook, it)));
    if prospects.any(|(outlook, prospect)| counts(outlook, prospect)) {
        let sentence = match supposed {
            true => {
                "an address would have no fitting node, or stay on one that it must leave; the lines above say which"
            }
            false => "an address has no fitting node; the lines above say which",
        };
        return Err(Refusal::new(Exit::Stranded, sentence));
    }
    let untold = if left.is_empty() { None } else { unread.first().map(ToString::to_string).or_else(|| untold(then)) };
    untold.map_or(Ok(()), |why| {
        Err(Refusal::new(Exit::Failed, format!("what would come of every address cannot be told: {why}")))
    })
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        allocation::decide::{placement::Verdict, users::Workload},
        api::{AddressStatus, Mode},
        kubectl_nia::{
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
        assert!(leaving(&cluster(), &moment(0)).is_empty());
        assert_eq!(rehearse(&cluster(), &nobody(), &moment(0))[0].spare, 1);
    }

    #[test]
    fn the_address_of_a_drained_node_goes_to_the_spare_one_and_the_cluster_is_left_as_it_was() {
        let now = cluster();
        let then = suppose(&now, &drained(&["node-a"])).unwrap();
        assert_eq!(leaving(&then, &moment(0)).into_iter().collect::<Vec<_>>(), ["node-a"]);
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
        verdict(&before, &after, what, &[]).err().map_or(Exit::Done, |refusal| refusal.exit)
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
            verdict(&[], std::slice::from_ref(outlook), what, unread).err().map(|refusal| refusal.exit)
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
