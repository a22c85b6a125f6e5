//! The order of calls and the guards between them, as sentences. `tests/promises` rests on these being the real ones.

use std::time::Duration;

use super::{
    super::cloud::{Meta, Sender, Slot},
    *,
};

const CLOUDS: [Provider; 3] = [Provider::Gcp, Provider::Aws, Provider::Azure];

fn ip() -> IpAddr {
    "203.0.113.7".parse().unwrap()
}

fn other() -> IpAddr {
    "203.0.113.8".parse().unwrap()
}

fn stamp() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

struct Scene {
    cloud: Cloud,
    cluster: Cluster,
    recent: Recent,
    machine: MachineId,
    now: Instant,
    rules: Rules,
    calls: Vec<String>,
    /// The request with this number, from 0, has no answer; it lands if the flag says so.
    silent: Option<(usize, bool)>,
    /// Before the request with this number lands, another machine takes the place of this one.
    replaced: Option<usize>,
    closed: bool,
    sent: usize,
}

impl Scene {
    fn new(kind: Provider) -> Self {
        let mut cloud = Cloud::new(kind);
        let machine = cloud.add_machine("a", true);
        cloud.add_machine("b", false);
        cloud.reserve(ip());
        cloud.reserve(other());
        let mut cluster = Cluster::default();
        cluster.add_node("a", &machine.place, &cloud.node_labels(), stamp());
        Self {
            cloud,
            cluster,
            recent: Recent::default(),
            machine,
            now: Instant::now(),
            rules: Rules::default(),
            calls: Vec::new(),
            silent: None,
            replaced: None,
            closed: false,
            sent: 0,
        }
    }

    fn terms(&self) -> Terms {
        Terms {
            ip: ip(),
            allocation: "sip".to_owned(),
            node: "a".to_owned(),
            node_uid: self.cluster.node("a").and_then(|node| node.metadata.uid.clone()),
            left_by: None,
            workload: Workload::Unnamed,
            cause: None,
            evict: false,
        }
    }

    fn intent(&self) -> Intent {
        Intent {
            kind: self.cloud.kind(),
            machine: self.machine.clone(),
            operation: Uuid::from_u128(7),
            send_before: self.now + Duration::from_secs(60),
        }
    }

    fn attach(&mut self) -> Ended {
        self.run(Errand::attach(self.rules, self.terms(), self.intent(), true))
    }

    fn detach(&mut self, cut: Cut) -> Ended {
        let intent = Intent { operation: Uuid::from_u128(8), ..self.intent() };
        self.run(Errand::detach(self.rules, self.terms(), intent, cut))
    }

    fn restore(&mut self) -> Ended {
        self.run(Errand::restore(self.rules, Intent { operation: Uuid::from_u128(9), ..self.intent() }))
    }

    fn run(&mut self, mut errand: Errand) -> Ended {
        self.calls.clear();
        self.sent = 0;
        loop {
            let call = errand.next();
            self.calls.push(format!("{call:?}").split(['(', ' ']).next().unwrap().to_owned());
            let answer = match &call {
                call if call.is_change() && self.closed => Answer::Closed("the process is stopping"),
                Call::Send(order) => {
                    *self.calls.last_mut().unwrap() = format!("{order:?}").split(' ').next().unwrap().to_owned();
                    self.send(order.clone())
                }
                call => {
                    call.read(&self.cloud, &self.cluster).or_else(|| call.write(&mut self.cluster, stamp())).unwrap()
                }
            };
            let reply = Reply { answer, began: self.now, now: self.now };
            if let Some(ended) = errand.answered(reply, &mut self.recent) {
                return ended;
            }
        }
    }

    fn send(&mut self, order: Order) -> Answer {
        let meta = Meta {
            sender: Sender { process: 0, effect: 0 },
            operation: Uuid::from_u128(7),
            address: Some(ip()),
            latest: self.now,
        };
        let id = self.cloud.send(order, meta);
        if self.replaced == Some(self.sent) {
            self.cloud.replace(&self.machine.place);
        }
        let silent = self.silent.filter(|(number, _)| *number == self.sent);
        self.sent += 1;
        match silent {
            Some((_, lands)) => {
                if lands {
                    self.cloud.land(id);
                }
                Answer::Silence
            }
            None => self.cloud.land(id).result.map_or_else(Answer::Failed, Answer::Done),
        }
    }

    fn slot(&self) -> Slot {
        self.cloud.machine(&self.machine.place).unwrap().slot
    }

    fn ours(&self) -> Holder {
        Holder::Machine(self.machine.place.clone())
    }

    /// A pod that uses the address.
    fn pod(&mut self) -> String {
        let pod = Pod { owner: None, gated: false, ..crate::cosmos::course::pod("kamailio-1") };
        self.cluster.start_pod("a", pod).unwrap().uid.clone()
    }

    fn label(&mut self) {
        let ended = self.run(Errand::label(self.rules, self.terms()));
        assert!(matches!(ended, Ended::Node(Some(_))), "{ended:?}");
    }

    fn labelled(&self) -> bool {
        self.cluster.node("a").unwrap().label(READY_LABEL).is_some()
    }
}

fn holder(ended: &Ended) -> Holder {
    match ended {
        Ended::Verified(verified) => verified.holder.clone(),
        other => panic!("not verified: {other:?}"),
    }
}

fn error(ended: &Ended) -> (ErrorKind, bool) {
    match ended {
        Ended::Failed(error) => (error.kind, error.settled),
        other => panic!("not failed: {other:?}"),
    }
}

#[test]
fn an_attach_makes_these_calls_and_no_others() {
    for (kind, calls) in [
        (Provider::Gcp, vec!["Inspect", "Find", "DeleteConfig", "AddConfig", "Find"]),
        (Provider::Aws, vec!["Inspect", "Find", "Associate"]),
        (Provider::Azure, vec!["Inspect", "Find", "PutInterface", "Find"]),
    ] {
        let mut scene = Scene::new(kind);
        assert_eq!(holder(&scene.attach()), scene.ours());
        assert_eq!(scene.calls, calls);
        assert_eq!(scene.cloud.holder(ip()), scene.ours());
        assert_eq!(holder(&scene.attach()), scene.ours(), "already there is success");
        assert!(!scene.calls.iter().any(|call| ["AddConfig", "Associate", "PutInterface"].contains(&call.as_str())));
    }
}

#[test]
fn a_detach_takes_the_labels_off_lists_the_pods_and_cuts_in_this_order() {
    for (kind, calls) in [
        (Provider::Gcp, vec!["ReadNode", "PatchLabels", "ListPods", "Inspect", "DeleteConfig", "Find"]),
        (Provider::Aws, vec!["ReadNode", "PatchLabels", "ListPods", "Find", "Inspect", "Disassociate"]),
        (Provider::Azure, vec!["ReadNode", "PatchLabels", "ListPods", "Inspect", "PutInterface", "Find"]),
    ] {
        let mut scene = Scene::new(kind);
        scene.attach();
        scene.label();
        assert_eq!(holder(&scene.detach(Cut::WhenUnused)), Holder::Free);
        assert_eq!(scene.calls, calls);
        assert!(!scene.labelled());
        assert_eq!(holder(&scene.detach(Cut::WhenUnused)), Holder::Free, "already off is success");
    }
}

#[test]
fn a_machine_gets_its_own_address_back_where_the_cloud_gives_it() {
    for kind in CLOUDS {
        let mut scene = Scene::new(kind);
        scene.attach();
        scene.detach(Cut::Now);
        let ended = scene.restore();
        match kind {
            Provider::Gcp => assert_eq!(scene.calls, ["Inspect", "AddConfig", "Inspect"]),
            Provider::Aws => assert_eq!(scene.calls, ["Inspect"], "AWS was quicker"),
            Provider::Azure => {
                assert_eq!(error(&ended), (ErrorKind::Unsupported, true));
                continue;
            }
        }
        assert!(matches!(ended, Ended::Restored(Restored::Given)), "{ended:?}");
        assert_eq!(scene.slot(), Slot::Own);
        scene.cloud.vanish(&scene.machine.place.clone());
        assert!(matches!(scene.restore(), Ended::Restored(Restored::MachineGone)));
    }
}

#[test]
fn aws_is_asked_for_an_own_address_once_and_believed_when_it_says_that_it_will_come() {
    use super::super::cloud::OwnReturns;
    let mut scene = Scene::new(Provider::Aws);
    scene.attach();
    scene.cloud.returns = OwnReturns::Later;
    scene.detach(Cut::Now);
    assert_eq!(error(&scene.restore()), (ErrorKind::Unavailable, true));
    assert_eq!(scene.calls, ["Inspect", "GiveOwn", "Inspect"]);
    scene.cloud.returns = OwnReturns::WhenAsked;
    assert!(matches!(scene.restore(), Ended::Restored(Restored::Given)));
}

#[test]
fn p10_aws_is_not_asked_for_what_it_gives_a_stopped_machine_when_that_starts() {
    let mut scene = Scene::new(Provider::Aws);
    scene.attach();
    let place = scene.machine.place.clone();
    scene.cloud.stop(&place);
    scene.detach(Cut::Now);
    assert_eq!(scene.slot(), Slot::Empty, "stopped it has none of its own");
    assert_eq!(error(&scene.restore()), (ErrorKind::Unsupported, true));
    assert_eq!(scene.calls, ["Inspect"]);
    scene.cloud.start(&place);
    assert_eq!(scene.slot(), Slot::Own);
}

#[test]
fn nothing_is_taken_from_who_has_it() {
    for kind in CLOUDS {
        let mut scene = Scene::new(kind);
        let b = super::super::cloud::place(kind, "b");
        scene.cloud.outsider_attaches(ip(), &b);
        assert_eq!(error(&scene.attach()), (ErrorKind::Conflict, true));
        assert_eq!(scene.cloud.holder(ip()), Holder::Machine(b.clone()));
        assert_eq!(holder(&scene.detach(Cut::Now)), Holder::Machine(b), "it is not on our machine");
        scene.cloud.outsider_takes(ip());
        assert_eq!(error(&scene.attach()), (ErrorKind::Conflict, true));
    }
}

#[test]
fn another_reserved_address_is_never_displaced_and_an_own_one_only_if_the_order_says_so() {
    for kind in CLOUDS {
        let mut scene = Scene::new(kind);
        let forbidden = Errand::attach(scene.rules, scene.terms(), scene.intent(), false);
        let ended = scene.run(forbidden);
        match kind {
            Provider::Azure => assert_eq!(holder(&ended), scene.ours(), "none of its own"),
            _ => assert_eq!(error(&ended), (ErrorKind::Conflict, true)),
        }
        let place = scene.machine.place.clone();
        scene.cloud.outsider_attaches(other(), &place);
        assert_eq!(error(&scene.attach()), (ErrorKind::Conflict, true));
        assert_eq!(scene.slot(), Slot::Reserved(other()));
    }
}

#[test]
fn another_machine_under_the_same_name_is_not_touched() {
    for kind in [Provider::Gcp, Provider::Azure] {
        let mut scene = Scene::new(kind);
        scene.attach();
        let place = scene.machine.place.clone();
        scene.cloud.replace(&place);
        assert_eq!(error(&scene.attach()), (ErrorKind::NotFound, true));
        scene.cloud.outsider_attaches(ip(), &place);
        assert_eq!(holder(&scene.detach(Cut::Now)), Holder::Machine(place), "it may hold the address by right");
        assert!(matches!(scene.restore(), Ended::Restored(Restored::MachineGone)));
    }
}

#[test]
fn what_an_azure_machine_has_left_behind_is_taken_off() {
    let mut scene = Scene::new(Provider::Azure);
    scene.attach();
    let place = scene.machine.place.clone();
    scene.cloud.vanish_without_interface(&place);
    assert_eq!(holder(&scene.detach(Cut::Now)), Holder::Free);
    assert_eq!(scene.calls, ["ReadNode", "Inspect", "Find", "PutInterface", "Find"]);
}

#[test]
fn a_change_without_an_answer_is_unsettled_whatever_it_did() {
    for kind in CLOUDS {
        for lands in [true, false] {
            let mut scene = Scene::new(kind);
            scene.silent = Some((0, lands));
            assert_eq!(error(&scene.attach()), (ErrorKind::Timeout, false));
            scene.silent = None;
            assert_eq!(holder(&scene.attach()), scene.ours(), "and can be repeated");
            scene.silent = Some((0, lands));
            assert_eq!(error(&scene.detach(Cut::Now)), (ErrorKind::Timeout, false));
            scene.silent = None;
            assert_eq!(holder(&scene.detach(Cut::Now)), Holder::Free);
        }
    }
}

#[test]
fn what_the_gate_did_not_let_through_has_left_nothing_under_way() {
    for kind in CLOUDS {
        let mut scene = Scene::new(kind);
        scene.closed = true;
        assert_eq!(error(&scene.attach()), (ErrorKind::Unavailable, true));
        let labelling = Errand::label(scene.rules, scene.terms());
        assert!(matches!(scene.run(labelling), Ended::NodeFailed(_)));
        scene.closed = false;
        scene.attach();
        scene.label();
        scene.closed = true;
        assert!(matches!(scene.detach(Cut::Now), Ended::HeldBack(_)), "no cut while the label is on");
        assert_eq!(scene.cloud.holder(ip()), scene.ours());
    }
}

#[test]
fn aws_is_believed_over_what_it_shows() {
    let mut scene = Scene::new(Provider::Aws);
    scene.cloud.lagging = true;
    assert_eq!(holder(&scene.attach()), scene.ours());
    assert_eq!(holder(&scene.attach()), scene.ours(), "what we made counts, although it is not shown");
    assert_eq!(scene.calls, ["Inspect", "Find"]);
    assert_eq!(holder(&scene.detach(Cut::Now)), Holder::Free, "and can be ended");
    scene.cloud.catch_up();
    assert_eq!(scene.cloud.holder(ip()), Holder::Free);
}

#[test]
fn an_associate_whose_answer_was_lost_is_found_to_be_ours_once_it_is_shown() {
    let mut scene = Scene::new(Provider::Aws);
    scene.cloud.lagging = true;
    scene.silent = Some((0, true));
    assert_eq!(error(&scene.attach()), (ErrorKind::Timeout, false));
    scene.silent = None;
    scene.cloud.catch_up();
    assert_eq!(holder(&scene.attach()), scene.ours());
}

#[test]
fn a_doubtful_end_of_an_association_counts_neither_as_there_nor_as_gone() {
    let mut scene = Scene::new(Provider::Aws);
    scene.attach();
    scene.silent = Some((0, true));
    assert_eq!(error(&scene.detach(Cut::Now)), (ErrorKind::Timeout, false));
    scene.silent = None;
    assert_eq!(holder(&scene.detach(Cut::Now)), Holder::Free, "the id is not found: somebody was quicker");
    assert_eq!(scene.calls, ["ReadNode", "Find", "Inspect", "Disassociate", "Find"]);
}

#[test]
fn an_association_that_is_not_found_any_more_is_gone_although_it_is_still_shown() {
    let mut scene = Scene::new(Provider::Aws);
    scene.attach();
    scene.cloud.lagging = true;
    scene.silent = Some((0, true));
    assert_eq!(error(&scene.detach(Cut::Now)), (ErrorKind::Timeout, false));
    scene.silent = None;
    assert_eq!(holder(&scene.detach(Cut::Now)), Holder::Free);
    assert_eq!(scene.calls, ["ReadNode", "Find", "Inspect", "Disassociate", "Find"]);
}

#[test]
fn a_delete_that_somebody_was_quicker_with_is_success() {
    let mut scene = Scene::new(Provider::Gcp);
    scene.attach();
    let intent = Intent { operation: Uuid::from_u128(8), ..scene.intent() };
    let mut errand = Errand::detach(scene.rules, scene.terms(), intent, Cut::Now);
    let mut answer = |scene: &mut Scene, answer| {
        errand.answered(Reply { answer, began: scene.now, now: scene.now }, &mut scene.recent);
        errand.next()
    };
    let node = scene.cluster.node("a").cloned();
    assert!(matches!(answer(&mut scene, Answer::Node(node)), Call::Inspect(_)));
    let live = scene.cloud.live(&scene.machine.place).unwrap();
    let Call::Send(delete) = answer(&mut scene, Answer::Live(live)) else { panic!() };
    scene.cloud.outsider_detaches(ip());
    let refused = scene.send(delete);
    assert!(matches!(answer(&mut scene, refused), Call::Inspect(_)), "only a read is sure");
    let live = scene.cloud.live(&scene.machine.place).unwrap();
    assert!(matches!(answer(&mut scene, Answer::Live(live)), Call::Find(_)));
}

#[test]
fn a_closing_read_is_repeated_and_then_says_so() {
    let mut scene = Scene::new(Provider::Gcp);
    scene.attach();
    let stale = scene.cloud.clone();
    let intent = Intent { operation: Uuid::from_u128(8), ..scene.intent() };
    let mut errand = Errand::detach(scene.rules, scene.terms(), intent, Cut::Now);
    let mut calls = 0;
    let ended = loop {
        calls += 1;
        let answer = match errand.next() {
            Call::Send(order) => scene.send(order),
            call @ Call::Find(_) => call.read(&stale, &scene.cluster).unwrap(),
            call => call.read(&scene.cloud, &scene.cluster).unwrap(),
        };
        if let Some(ended) = errand.answered(Reply { answer, began: scene.now, now: scene.now }, &mut scene.recent) {
            break ended;
        }
    };
    assert!(matches!(holder(&ended), Holder::Foreign(what) if what.starts_with("another interface")));
    assert_eq!(calls, 3 + 4 + 1);
}

#[test]
fn labels_are_put_on_and_taken_off_in_one_patch() {
    let mut scene = Scene::new(Provider::Gcp);
    scene.label();
    let node = scene.cluster.node("a").unwrap();
    assert_eq!(node.label(ADDRESS_LABEL), Some("203.0.113.7"));
    assert_eq!(scene.calls, ["ReadNode", "PatchLabels"]);
    let unlabel = Errand::unlabel(scene.rules, scene.terms());
    assert!(matches!(scene.run(unlabel.clone()), Ended::Node(Some(_))));
    assert!(!scene.labelled());
    scene.run(unlabel);
    assert_eq!(scene.calls, ["ReadNode"], "nothing to take off");
}

#[test]
fn labels_that_another_allocation_has_earned_stay_and_those_that_it_has_left_go() {
    let mut scene = Scene::new(Provider::Gcp);
    let earned = Terms { allocation: "web".to_owned(), ..scene.terms() };
    scene.run(Errand::label(scene.rules, earned));
    scene.run(Errand::unlabel(scene.rules, scene.terms()));
    assert!(scene.labelled());
    let left = Terms { left_by: Some("web".to_owned()), ..scene.terms() };
    scene.run(Errand::unlabel(scene.rules, left));
    assert!(!scene.labelled());
}

#[test]
fn a_node_that_was_created_anew_is_not_labelled() {
    let mut scene = Scene::new(Provider::Gcp);
    let labelling = Errand::label(scene.rules, scene.terms());
    let place = scene.machine.place.clone();
    scene.cluster.add_node("a", &place, &BTreeMap::new(), stamp());
    assert!(matches!(scene.run(labelling.clone()), Ended::NodeFailed(_)));
    scene.cluster.delete_node("a");
    assert!(matches!(scene.run(labelling), Ended::Node(None)));
}

#[test]
fn a_pod_that_came_late_is_waited_for_and_asked_only_where_the_cause_says_so() {
    for (evict, asks) in [(false, false), (true, true)] {
        let mut scene = Scene::new(Provider::Gcp);
        scene.attach();
        scene.pod();
        let terms = Terms { evict, ..scene.terms() };
        let detach = Errand::detach(scene.rules, terms, scene.intent(), Cut::WhenUnused);
        assert!(matches!(scene.run(detach), Ended::HeldBack(_)));
        assert_eq!(scene.calls.contains(&"Evict".to_owned()), asks);
        assert_eq!(scene.cloud.holder(ip()), scene.ours());
        scene.detach(Cut::Now);
        assert_eq!(scene.cloud.holder(ip()), Holder::Free, "a fault waits for nobody");
    }
}

#[test]
fn what_is_never_cut_is_only_looked_at_and_its_users_are_asked_to_go() {
    let mut scene = Scene::new(Provider::Gcp);
    let uid = scene.pod();
    assert_eq!(holder(&scene.detach(Cut::Never)), Holder::Free);
    assert_eq!(scene.calls, ["ReadNode", "ListPods", "Evict", "Find"]);
    assert!(scene.cluster.pods_of("a").iter().any(|pod| pod.uid == uid && pod.terminating_until.is_some()));
}

#[test]
fn nothing_is_cut_when_the_workload_or_the_pods_cannot_be_read() {
    let mut scene = Scene::new(Provider::Gcp);
    let terms = Terms { workload: Workload::Unknown, ..scene.terms() };
    let detach = Errand::detach(scene.rules, terms, scene.intent(), Cut::WhenUnused);
    assert!(matches!(scene.run(detach), Ended::HeldBack(_)));
    let mut errand = Errand::detach(scene.rules, scene.terms(), scene.intent(), Cut::WhenUnused);
    let mut reply = |answer| errand.answered(Reply { answer, began: scene.now, now: scene.now }, &mut scene.recent);
    assert!(reply(Answer::Node(None)).is_none());
    assert!(matches!(reply(Answer::Silence), Some(Ended::HeldBack(_))));
}

#[test]
fn pods_are_asked_one_by_one_and_a_refusal_is_told() {
    let mut scene = Scene::new(Provider::Gcp);
    let uid = scene.pod();
    let users = users::users(&scene.cluster.pods_of("a"), &Workload::Unnamed);
    assert!(Errand::evict(scene.rules, scene.terms(), Vec::new()).is_none());
    let errand = Errand::evict(scene.rules, scene.terms(), users).unwrap();
    scene.cluster.guarded.insert(uid);
    let asked = |ended| match ended {
        Ended::Asked(asked) => asked.into_iter().map(|(_, asked)| asked).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert!(matches!(asked(scene.run(errand.clone())).as_slice(), [Asked::Blocked(_)]));
    scene.closed = true;
    assert!(matches!(asked(scene.run(errand.clone())).as_slice(), [Asked::Failed(_)]));
    scene.closed = false;
    scene.cluster.delete_node("a");
    assert_eq!(asked(scene.run(errand)), [Asked::Accepted], "it is gone");
}

#[test]
fn only_requests_to_the_cloud_have_a_last_instant() {
    let mut scene = Scene::new(Provider::Aws);
    let mut errand = Errand::attach(scene.rules, scene.terms(), scene.intent(), true);
    while !errand.next().is_change() {
        assert_eq!(errand.send_before(), None);
        let answer = errand.next().read(&scene.cloud, &scene.cluster).unwrap();
        errand.answered(Reply { answer, began: scene.now, now: scene.now }, &mut scene.recent);
    }
    assert_eq!(errand.send_before(), Some(scene.intent().send_before));
}

// What a mutant does that leaves a rule out.

#[test]
fn without_f7_a_change_goes_on_whatever_was_read() {
    for kind in CLOUDS {
        let mut scene = Scene::new(kind);
        scene.rules.live_read_before_change = false;
        let place = scene.machine.place.clone();
        scene.cloud.outsider_attaches(other(), &place);
        scene.attach();
        assert_eq!(scene.slot(), Slot::Reserved(ip()), "another's address is displaced");
        scene.cloud.outsider_attaches(other(), &place);
        scene.detach(Cut::Now);
        assert_eq!(scene.slot() == Slot::Reserved(other()), kind == Provider::Aws, "AWS names the address's own");
    }
}

#[test]
fn at_google_cloud_a_change_of_another_machine_of_that_name_is_not_taken_for_one_of_ours() {
    let mut scene = Scene::new(Provider::Gcp);
    scene.machine = scene.cloud.add_machine("c", false);
    scene.replaced = Some(0);
    let Ended::Failed(error) = scene.attach() else { panic!("the machine that was meant has nothing") };
    assert_eq!((error.kind, error.settled), (ErrorKind::NotFound, true));
    assert_eq!(scene.slot(), Slot::Reserved(ip()), "it landed on the other one");
}

#[test]
fn without_names_of_its_own_a_config_is_called_as_everybody_calls_it() {
    let mut scene = Scene::new(Provider::Gcp);
    scene.attach();
    assert_ne!(scene.cloud.live(&scene.machine.place).unwrap().mark, super::super::cloud::THEIRS);
    scene.detach(Cut::Now);
    scene.rules.names_of_its_own = false;
    scene.attach();
    assert_eq!(scene.cloud.live(&scene.machine.place).unwrap().mark, super::super::cloud::THEIRS);
}

#[test]
fn without_l2_labels_or_pods_are_not_looked_at() {
    let mut scene = Scene::new(Provider::Gcp);
    scene.attach();
    scene.label();
    scene.pod();
    scene.rules = Rules { labels_before_cut: false, pods_before_cut: false, ..Rules::default() };
    assert_eq!(holder(&scene.detach(Cut::WhenUnused)), Holder::Free);
    assert!(scene.labelled());
}
