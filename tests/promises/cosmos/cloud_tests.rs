//! Each trap of a cloud, as a sentence.

use std::time::Duration;

use super::*;

fn ip() -> IpAddr {
    "203.0.113.7".parse().unwrap()
}

fn other() -> IpAddr {
    "203.0.113.8".parse().unwrap()
}

fn meta() -> Meta {
    let sender = Sender { process: 0, effect: 1 };
    Meta { sender, operation: Uuid::from_u128(7), address: Some(ip()), latest: Instant::now() }
}

/// Two machines with an address of their own each, and two reserved addresses.
fn cloud(kind: Provider) -> (Cloud, ProviderId, ProviderId) {
    let mut cloud = Cloud::new(kind);
    let (a, b) = (cloud.add_machine("a", true).place, cloud.add_machine("b", true).place);
    cloud.reserve(ip());
    cloud.reserve(other());
    (cloud, a, b)
}

/// The association that it makes.
fn made(cloud: &mut Cloud, order: Order) -> Mark {
    match land(cloud, order).result.unwrap() {
        Told::Association(association) => association,
        told => panic!("{told:?}"),
    }
}

fn land(cloud: &mut Cloud, order: Order) -> Landed {
    let id = cloud.send(order, meta());
    cloud.land(id)
}

fn kind(landed: &Landed) -> Option<ErrorKind> {
    landed.result.as_ref().err().map(|error| error.kind)
}

fn ours(n: u128) -> Mark {
    Mark::Made(Uuid::from_u128(n))
}

fn slot(cloud: &Cloud, place: &ProviderId) -> Slot {
    cloud.machine(place).unwrap().slot
}

#[test]
fn google_swaps_an_own_address_for_a_reserved_one_by_two_requests() {
    let (mut cloud, a, _) = cloud(Provider::Gcp);
    let add = Order::AddConfig { machine: a.clone(), name: ours(1), ip: Some(ip()) };
    assert_eq!(kind(&land(&mut cloud, add.clone())), Some(ErrorKind::Conflict), "there is one already");
    let deleted = land(&mut cloud, Order::DeleteConfig { machine: a.clone(), name: THEIRS });
    assert_eq!(deleted.removed, Some((a.clone(), Slot::Own)));
    assert_eq!(slot(&cloud, &a), Slot::Empty, "between the two it has none");
    assert_eq!(land(&mut cloud, add).put, Some((a.clone(), Slot::Reserved(ip()))));
    assert_eq!(cloud.holder(ip()), Holder::Machine(a));
}

#[test]
fn a_late_delete_of_a_name_that_is_never_used_twice_hits_nothing() {
    let (mut cloud, a, _) = cloud(Provider::Gcp);
    land(&mut cloud, Order::DeleteConfig { machine: a.clone(), name: THEIRS });
    land(&mut cloud, Order::AddConfig { machine: a.clone(), name: ours(1), ip: Some(ip()) });
    let late = cloud.send(Order::DeleteConfig { machine: a.clone(), name: ours(1) }, meta());
    land(&mut cloud, Order::DeleteConfig { machine: a.clone(), name: ours(1) });
    land(&mut cloud, Order::AddConfig { machine: a.clone(), name: ours(2), ip: Some(other()) });
    assert_eq!(kind(&cloud.land(late)), Some(ErrorKind::Invalid));
    assert_eq!(cloud.holder(other()), Holder::Machine(a));
}

#[test]
fn a_late_delete_of_a_name_that_people_use_hits_what_they_put_there_since() {
    let (mut cloud, a, _) = cloud(Provider::Gcp);
    let late = cloud.send(Order::DeleteConfig { machine: a.clone(), name: THEIRS }, meta());
    cloud.outsider_attaches(other(), &a);
    assert_eq!(cloud.land(late).removed, Some((a, Slot::Reserved(other()))));
}

#[test]
fn google_refuses_an_address_that_is_in_use_elsewhere() {
    let (mut cloud, a, b) = cloud(Provider::Gcp);
    cloud.outsider_attaches(ip(), &b);
    land(&mut cloud, Order::DeleteConfig { machine: a.clone(), name: THEIRS });
    let add = Order::AddConfig { machine: a.clone(), name: ours(1), ip: Some(ip()) };
    assert_eq!(kind(&land(&mut cloud, add.clone())), Some(ErrorKind::Conflict));
    cloud.outsider_takes(ip());
    assert_eq!(kind(&land(&mut cloud, add.clone())), Some(ErrorKind::Conflict));
    cloud.release(ip());
    assert_eq!(kind(&land(&mut cloud, add)), Some(ErrorKind::Invalid));
}

#[test]
fn google_takes_a_machine_by_its_name_for_the_one_that_has_it_now() {
    let (mut cloud, a, _) = cloud(Provider::Gcp);
    let before = cloud.live(&a).unwrap().seat.machine;
    assert_ne!(cloud.replace(&a), before);
    let deleted = land(&mut cloud, Order::DeleteConfig { machine: a.clone(), name: THEIRS });
    assert_eq!(deleted.removed, Some((a, Slot::Own)), "of the new machine");
}

#[test]
fn google_gives_a_machine_its_own_address_back_when_it_is_asked() {
    let (mut cloud, a, _) = cloud(Provider::Gcp);
    land(&mut cloud, Order::DeleteConfig { machine: a.clone(), name: THEIRS });
    assert_eq!(slot(&cloud, &a), Slot::Empty);
    land(&mut cloud, Order::AddConfig { machine: a.clone(), name: ours(1), ip: None });
    assert_eq!(slot(&cloud, &a), Slot::Own);
}

#[test]
fn aws_displaces_what_is_on_the_interface_without_a_word() {
    let (mut cloud, a, _) = cloud(Provider::Aws);
    let associate = |ip| Order::Associate { machine: place(Provider::Aws, "a"), ip, reassociate: false };
    assert_eq!(land(&mut cloud, associate(ip())).removed, Some((a.clone(), Slot::Own)));
    let landed = land(&mut cloud, associate(other()));
    assert!(landed.result.is_ok());
    assert_eq!(landed.removed, Some((a, Slot::Reserved(ip()))), "a reserved one too");
    assert_eq!(cloud.holder(ip()), Holder::Free);
}

#[test]
fn aws_takes_an_address_from_nobody_unless_it_is_told_that_it_may() {
    let (mut cloud, a, b) = cloud(Provider::Aws);
    let associate =
        |machine: &ProviderId, reassociate| Order::Associate { machine: machine.clone(), ip: ip(), reassociate };
    assert!(land(&mut cloud, associate(&a, false)).result.is_ok());
    assert_eq!(kind(&land(&mut cloud, associate(&b, false))), Some(ErrorKind::Conflict));
    assert!(land(&mut cloud, associate(&a, false)).result.is_ok(), "there already");
    let stolen = land(&mut cloud, associate(&b, true));
    assert!(stolen.result.is_ok());
    assert_eq!(cloud.holder(ip()), Holder::Machine(b));
}

#[test]
fn aws_ends_an_association_by_its_id_and_gives_the_machine_its_own_address_back_by_itself() {
    let (mut cloud, a, b) = cloud(Provider::Aws);
    let associate = |machine: &ProviderId| Order::Associate { machine: machine.clone(), ip: ip(), reassociate: false };
    let association = made(&mut cloud, associate(&a));
    let late = cloud.send(Order::Disassociate { association: association.clone() }, meta());
    assert_eq!(land(&mut cloud, Order::Disassociate { association }).removed, Some((a.clone(), Slot::Reserved(ip()))));
    assert_eq!(slot(&cloud, &a), Slot::Own);
    land(&mut cloud, associate(&b));
    assert_eq!(kind(&cloud.land(late)), Some(ErrorKind::NotFound), "another one has another id");
    assert_eq!(cloud.holder(ip()), Holder::Machine(b));
}

#[test]
fn aws_gives_an_own_address_back_later_or_when_it_is_asked() {
    let (mut cloud, a, _) = cloud(Provider::Aws);
    for (returns, refused) in [(OwnReturns::Later, Some(ErrorKind::Denied)), (OwnReturns::WhenAsked, None)] {
        cloud.returns = returns;
        let associate = Order::Associate { machine: a.clone(), ip: ip(), reassociate: false };
        let association = made(&mut cloud, associate);
        land(&mut cloud, Order::Disassociate { association });
        assert_eq!(slot(&cloud, &a), Slot::Empty);
        assert_eq!(kind(&land(&mut cloud, Order::GiveOwn { machine: a.clone() })), refused);
        cloud.own_returns(&a);
        assert_eq!(slot(&cloud, &a), Slot::Own);
    }
}

#[test]
fn what_aws_shows_lags_behind_what_is_so() {
    let (mut cloud, a, _) = cloud(Provider::Aws);
    cloud.lagging = true;
    land(&mut cloud, Order::Associate { machine: a.clone(), ip: ip(), reassociate: false });
    assert_eq!(cloud.holder(ip()), Holder::Machine(a.clone()));
    let shown = |cloud: &Cloud| match cloud.find(ip()) {
        Whereabouts::Here(reservation) => reservation.holder,
        elsewhere => panic!("{elsewhere:?}"),
    };
    assert_eq!(shown(&cloud), Holder::Free);
    assert!(matches!(cloud.inspect(&a).unwrap().interface, Interface::Ephemeral(_)));
    assert!(cloud.is_behind());
    cloud.catch_up();
    assert_eq!(shown(&cloud), Holder::Machine(a));
}

#[test]
fn an_ec2_instance_is_never_replaced_under_its_name() {
    let (mut cloud, a, _) = cloud(Provider::Aws);
    let next = cloud.replace(&a);
    assert_ne!(next.place, a);
    assert_eq!(cloud.inspect(&a).unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(cloud.inspect(&next.place).unwrap().machine, next);
}

#[test]
fn azure_refuses_an_interface_that_has_changed_since_it_was_read() {
    let (mut cloud, a, b) = cloud(Provider::Azure);
    assert_eq!(cloud.inspect(&a).unwrap().interface, Interface::Empty, "Azure machines have none of their own");
    let etag = Some(cloud.live(&a).unwrap().mark);
    let put = |etag: Option<Mark>, set| Order::PutInterface { machine: place(Provider::Azure, "a"), etag, set };
    assert!(land(&mut cloud, put(etag.clone(), Some(ip()))).result.is_ok());
    assert_eq!(kind(&land(&mut cloud, put(etag, None))), Some(ErrorKind::Unavailable));
    cloud.outsider_attaches(other(), &b);
    let etag = Some(cloud.live(&a).unwrap().mark);
    assert_eq!(kind(&land(&mut cloud, put(etag, Some(other())))), Some(ErrorKind::Conflict), "it is in use");
}

#[test]
fn azure_writes_over_whatever_is_there_if_nothing_was_changed_since() {
    let (mut cloud, a, _) = cloud(Provider::Azure);
    cloud.outsider_attaches(other(), &a);
    let etag = Some(cloud.live(&a).unwrap().mark);
    let landed = land(&mut cloud, Order::PutInterface { machine: a.clone(), etag, set: Some(ip()) });
    assert_eq!(landed.removed, Some((a.clone(), Slot::Reserved(other()))));
    assert_eq!(landed.put, Some((a, Slot::Reserved(ip()))));
}

#[test]
fn an_azure_machine_may_leave_its_interface_behind_with_the_address_on_it() {
    let (mut cloud, a, _) = cloud(Provider::Azure);
    cloud.outsider_attaches(ip(), &a);
    cloud.vanish_without_interface(&a);
    assert!(matches!(cloud.holder(ip()), Holder::Foreign(_)));
    let mount = cloud.found(ip()).mount.unwrap();
    assert!(mount.left_behind);
    let put = Order::PutInterface { machine: a.clone(), etag: Some(mount.mark), set: None };
    assert_eq!(land(&mut cloud, put).removed, Some((a, Slot::Reserved(ip()))));
    assert_eq!(cloud.holder(ip()), Holder::Free);
}

#[test]
fn with_a_machine_its_address_comes_free() {
    for kind in [Provider::Gcp, Provider::Aws, Provider::Azure] {
        let (mut cloud, a, _) = cloud(kind);
        cloud.outsider_attaches(ip(), &a);
        cloud.stop(&a);
        assert_eq!(cloud.holder(ip()), Holder::Machine(a.clone()), "stopped, it keeps it");
        assert_eq!(cloud.inspect(&a).unwrap().power, Power::Stopped);
        cloud.vanish(&a);
        assert_eq!(cloud.holder(ip()), Holder::Free);
        assert_eq!(cloud.inspect(&a).unwrap_err().kind, ErrorKind::NotFound);
    }
}

#[test]
fn a_request_that_has_not_landed_in_its_time_never_does() {
    let (mut cloud, a, _) = cloud(Provider::Gcp);
    let now = Instant::now();
    let first = cloud.send(Order::DeleteConfig { machine: a.clone(), name: THEIRS }, Meta { latest: now, ..meta() });
    assert!(cloud.expire(now).is_empty());
    assert_eq!(cloud.expire(now + Duration::from_nanos(1)).len(), 1);
    assert!(cloud.requests().is_empty());
    let again = cloud.send(Order::DeleteConfig { machine: a, name: THEIRS }, meta());
    assert_eq!(again, first, "numbers are used again, so that two ways into one state look the same");
}

#[test]
fn the_scope_is_that_of_the_machines() {
    for kind in [Provider::Gcp, Provider::Aws] {
        let (cloud, a, _) = cloud(kind);
        assert_eq!(a.place().unwrap().scope(), cloud.scope());
    }
}

#[test]
fn two_ways_into_one_state_have_one_fingerprint() {
    let now = Instant::now();
    let stamp = jiff::Timestamp::UNIX_EPOCH;
    for kind in [Provider::Gcp, Provider::Aws, Provider::Azure] {
        let (mut cloud, a, _) = cloud(kind);
        let of = |cloud: &Cloud| crate::canon::fingerprint(now, stamp, |canon| cloud.canon(canon, |_| true));
        cloud.outsider_attaches(ip(), &a);
        let before = of(&cloud);
        cloud.outsider_detaches(ip());
        assert_ne!(of(&cloud), before);
        cloud.outsider_attaches(ip(), &a);
        assert_eq!(of(&cloud), before, "another association or etag, and nobody knows the old one");
        let sent =
            |cloud: &mut Cloud| cloud.send(Order::DeleteConfig { machine: place(kind, "a"), name: THEIRS }, meta());
        let first = sent(&mut cloud);
        let pending = of(&cloud);
        assert_ne!(pending, before);
        cloud.lose(first);
        sent(&mut cloud);
        assert_eq!(of(&cloud), pending);
        cloud.lagging = true;
        assert_ne!(of(&cloud), pending);
    }
}

#[test]
fn a_mark_that_nothing_can_be_asked_for_by_is_no_part_of_the_state() {
    let (mut cloud, a, _) = cloud(Provider::Gcp);
    let now = Instant::now();
    let of = |cloud: &Cloud| {
        crate::canon::fingerprint(now, jiff::Timestamp::UNIX_EPOCH, |canon| cloud.canon(canon, |_| true))
    };
    land(&mut cloud, Order::DeleteConfig { machine: a.clone(), name: THEIRS });
    let empty = of(&cloud);
    land(&mut cloud, Order::AddConfig { machine: a.clone(), name: ours(1), ip: None });
    land(&mut cloud, Order::DeleteConfig { machine: a, name: ours(1) });
    assert_eq!(of(&cloud), empty);
}
