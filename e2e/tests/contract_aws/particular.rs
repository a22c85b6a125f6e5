//! What only EC2 does.

use std::{net::Ipv4Addr, time::Duration};

use e2e::{
    contract::{Bench as _, FAR, NODE, NODE_2, ONE, PRIVATE, TWO},
    simulator::ec2,
    world::{Address, Fault, NewMachine, Point, Power},
};
use ip_address_controller::cloud::{
    Cloud as _, ErrorKind, Holder, Interface, ProviderId, Reach, Whereabouts, aws::Aws,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use crate::bench::{AwsBench, HOME, LOCAL_GROUP, LOCAL_ZONE, arrived, install_tls, ip, scope, settings};

#[tokio::test]
async fn a_survey_is_one_call_whatever_there_is() {
    let bench = AwsBench::start().await.unwrap();
    for n in 0..300_u32 {
        let address = Ipv4Addr::from(0x0a00_0000 + n).into();
        let name = format!("many-{n}");
        bench.world.add_address(Address::new(HOME.account, HOME.region, &name, address));
        bench.world.add_machine(NewMachine::new(HOME.account, HOME.region, HOME.zone, &name));
        bench.world.move_address(address, &name).unwrap();
    }
    let survey = bench.cloud.survey(&scope()).await.unwrap();
    assert_eq!(survey.addresses.len(), 302);
    assert_eq!(survey.addresses[&ip("10.0.0.7")].holder, bench.on("many-7"));
    assert_eq!(bench.world.calls().len(), 1);
}

#[tokio::test]
async fn a_survey_names_holders_so_that_they_can_be_found() {
    let bench = AwsBench::start().await.unwrap();
    bench.world.move_address(ip(ONE), NODE).unwrap();
    let survey = bench.cloud.survey(&scope()).await.unwrap();
    let Holder::Machine(holder) = &survey.addresses[&ip(ONE)].holder else { panic!("{survey:?}") };
    let seat = bench.cloud.inspect(holder).await.unwrap();
    assert_eq!(seat.machine.to_string(), bench.machine(NODE).to_string());
}

#[tokio::test]
async fn an_address_that_somebody_else_takes_meanwhile_is_not_taken_back() {
    let bench = AwsBench::start().await.unwrap();
    let held = bench.world.hold("AssociateAddress", Point::Arrival);
    let (cloud, order) = (bench.cloud.clone(), bench.attach(ONE, NODE));
    let sender = tokio::spawn(async move { cloud.attach(&order).await });
    arrived(&held).await;
    bench.world.move_address(ip(ONE), NODE_2).unwrap();
    held.release();
    let error = sender.await.unwrap().unwrap_err();
    assert_eq!((error.kind, error.settled), (ErrorKind::Conflict, true), "{error}");
    assert_eq!(bench.world.machine_of(ip(ONE)).as_deref(), Some(NODE_2));
}

#[tokio::test]
async fn an_address_goes_on_the_primary_interface_of_several() {
    let bench = AwsBench::start().await.unwrap();
    bench.add_wide("wide");
    bench.cloud.attach(&bench.attach(ONE, "wide")).await.unwrap();
    assert_eq!(bench.world.machine_of(ip(ONE)).as_deref(), Some("wide"));
    let seat = bench.cloud.inspect(&bench.machine("wide").place).await.unwrap();
    assert_eq!(seat.interface, Interface::Reserved(ip(ONE)));
    bench.cloud.detach(&bench.detach(ONE, "wide")).await.unwrap();
    assert_eq!(bench.world.machine_of(ip(ONE)), None);
}

#[tokio::test]
async fn an_address_on_another_interface_is_neither_taken_nor_believed() {
    let bench = AwsBench::start().await.unwrap();
    bench.add_wide("wide");
    bench.world.give_to_foreign(ip(ONE), "interfaces/wide/1");
    // The list of addresses cannot tell; whoever looks closer can.
    let survey = bench.cloud.survey(&scope()).await.unwrap();
    assert_eq!(survey.addresses[&ip(ONE)].holder, bench.on("wide"));
    let seat = bench.cloud.inspect(&bench.machine("wide").place).await.unwrap();
    assert!(matches!(seat.interface, Interface::Ephemeral(_)), "{seat:?}");
    let error = bench.cloud.attach(&bench.attach(ONE, "wide")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict, "{error}");
    let verified = bench.cloud.detach(&bench.detach(ONE, "wide")).await.unwrap();
    assert!(matches!(&verified.holder, Holder::Foreign(told) if told.contains("another interface")), "{verified:?}");
    assert!(bench.world.mutations().is_empty());
}

#[tokio::test]
async fn an_address_that_a_service_manages_is_never_touched() {
    let bench = AwsBench::start().await.unwrap();
    bench.world.give_to_foreign(ip(ONE), "nlb");
    let survey = bench.cloud.survey(&scope()).await.unwrap();
    assert!(matches!(&survey.addresses[&ip(ONE)].holder, Holder::Foreign(told) if told.contains("nlb")));
    let error = bench.cloud.attach(&bench.attach(ONE, NODE)).await.unwrap_err();
    assert!(error.kind == ErrorKind::Conflict && error.message.contains("nlb"), "{error}");
    assert!(bench.world.mutations().is_empty());
}

#[tokio::test]
async fn an_association_that_has_ended_meanwhile_is_no_failure() {
    for next in [None, Some(NODE_2)] {
        let bench = AwsBench::start().await.unwrap();
        bench.cloud.attach(&bench.attach(ONE, NODE)).await.unwrap();
        let held = bench.world.hold("DisassociateAddress", Point::Arrival);
        let (cloud, order) = (bench.cloud.clone(), bench.detach(ONE, NODE));
        let sender = tokio::spawn(async move { cloud.detach(&order).await });
        arrived(&held).await;
        bench.world.free_address(ip(ONE));
        if let Some(next) = next {
            bench.world.move_address(ip(ONE), next).unwrap();
        }
        held.release();
        let verified = sender.await.unwrap().unwrap();
        assert_eq!(verified.holder, next.map_or(Holder::Free, |next| bench.on(next)));
        assert_eq!(bench.world.machine_of(ip(ONE)).as_deref(), next);
    }
}

#[tokio::test]
async fn an_instance_that_is_still_starting_is_waited_for() {
    let bench = AwsBench::start().await.unwrap();
    bench.world.set_power(NODE, Power::Starting);
    let error = bench.cloud.attach(&bench.attach(ONE, NODE)).await.unwrap_err();
    assert_eq!((error.kind, error.settled), (ErrorKind::Unavailable, true), "{error}");
    assert!(bench.world.mutations().is_empty());
    // Or it says so itself.
    bench.world.set_power(NODE, Power::Running);
    let held = bench.world.hold("AssociateAddress", Point::Arrival);
    let (cloud, order) = (bench.cloud.clone(), bench.attach(ONE, NODE));
    let sender = tokio::spawn(async move { cloud.attach(&order).await });
    arrived(&held).await;
    bench.world.set_power(NODE, Power::Stopping);
    held.release();
    let error = sender.await.unwrap().unwrap_err();
    assert_eq!((error.kind, error.settled), (ErrorKind::Unavailable, true), "{error}");
    // A stopped one takes it.
    bench.world.stop_machine(NODE);
    bench.cloud.attach(&bench.attach(ONE, NODE)).await.unwrap();
}

#[tokio::test]
async fn an_address_works_in_its_border_group_alone() {
    let bench = AwsBench::start().await.unwrap();
    let local = "203.0.113.50";
    bench.world.add_address(Address::new(HOME.account, HOME.region, "local", ip(local)).of_group(LOCAL_GROUP));
    bench.world.add_machine(NewMachine::new(HOME.account, HOME.region, LOCAL_ZONE, "edge"));
    let survey = bench.cloud.survey(&scope()).await.unwrap();
    assert_eq!(survey.addresses[&ip(local)].reach, Reach::BorderGroup(LOCAL_GROUP.to_owned()));
    let error = bench.cloud.attach(&bench.attach(local, NODE)).await.unwrap_err();
    assert_eq!((error.kind, error.settled), (ErrorKind::Invalid, true), "{error}");
    assert!(bench.world.mutations().is_empty());
    bench.cloud.attach(&bench.attach(local, "edge")).await.unwrap();
    assert_eq!(bench.world.machine_of(ip(local)).as_deref(), Some("edge"));
}

#[tokio::test]
async fn an_instance_of_another_region_is_refused_before_anything_is_sent() {
    let bench = AwsBench::start().await.unwrap();
    let zone = format!("{}b", HOME.other_region);
    bench.world.add_machine(NewMachine::new(HOME.account, HOME.other_region, &zone, "far-node"));
    let error = bench.cloud.attach(&bench.attach(ONE, "far-node")).await.unwrap_err();
    assert_eq!((error.kind, error.settled), (ErrorKind::Invalid, true), "{error}");
    assert!(bench.world.calls().is_empty());
}

#[tokio::test]
async fn an_instance_that_a_service_manages_is_said_to_be_unsupported() {
    let bench = AwsBench::start().await.unwrap();
    bench.world.add_machine(NewMachine::new(HOME.account, HOME.region, HOME.zone, "auto").managed());
    let error = bench.cloud.inspect(&bench.machine("auto").place).await.unwrap_err();
    assert!(error.kind == ErrorKind::Unsupported && error.message.contains("EKS Auto Mode"), "{error}");
    let error = bench.cloud.attach(&bench.attach(ONE, "auto")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unsupported, "{error}");
    let fargate = ProviderId::new("aws:///us-west-2a/0123abcd/fargate-ip-10-0-1-2.ec2.internal");
    let error = bench.cloud.inspect(&fargate).await.unwrap_err();
    assert!(error.kind == ErrorKind::Unsupported && error.message.contains("Fargate"), "{error}");
}

#[tokio::test]
async fn where_we_may_not_look_for_an_address_it_is_not_found() {
    let bench = AwsBench::start().await.unwrap();
    assert_eq!(
        bench.cloud.find(&scope(), ip(FAR)).await.unwrap(),
        Whereabouts::OtherRegion(HOME.other_region.to_owned())
    );
    bench.world.deny("ec2:DescribeRegions");
    assert_eq!(bench.cloud.find(&scope(), ip(FAR)).await.unwrap(), Whereabouts::NotFound);
    // Its own region must have been looked into.
    bench.world.deny("ec2:DescribeAddresses");
    assert_eq!(bench.cloud.find(&scope(), ip(FAR)).await.unwrap_err().kind, ErrorKind::Denied);
}

#[tokio::test]
async fn another_region_that_does_not_answer_is_passed_over() {
    let bench = AwsBench::start().await.unwrap();
    bench.world.fail_next("DescribeAddresses", Fault::Latency(Duration::from_millis(1)));
    bench.world.fail_next("DescribeAddresses", Fault::refuse(400, "InternalError", "once more"));
    assert_eq!(bench.cloud.find(&scope(), ip("198.51.100.250")).await.unwrap(), Whereabouts::NotFound);
}

#[tokio::test]
async fn a_read_that_fails_for_a_moment_is_sent_again_and_a_change_is_not() {
    let bench = AwsBench::start().await.unwrap();
    bench.world.fail_next("DescribeAddresses", Fault::refuse(503, "Unavailable", "come back later"));
    bench.cloud.survey(&scope()).await.unwrap();
    bench.world.fail_next("AssociateAddress", Fault::refuse(503, "Unavailable", "come back later"));
    let error = bench.cloud.attach(&bench.attach(ONE, PRIVATE)).await.unwrap_err();
    assert_eq!((error.kind, error.settled), (ErrorKind::Unavailable, false), "{error}");
    assert_eq!(bench.world.mutations().len(), 1);
}

#[tokio::test]
async fn a_refusal_is_one_short_line_that_names_the_action() {
    let bench = AwsBench::start().await.unwrap();
    bench.world.deny("ec2:DisassociateAddress");
    bench.world.move_address(ip(TWO), NODE).unwrap();
    let error = bench.cloud.detach(&bench.detach(TWO, NODE)).await.unwrap_err();
    assert_eq!((error.kind, error.settled), (ErrorKind::Denied, true));
    assert!(error.message.contains("ec2:DisassociateAddress on resource"), "{error}");
    assert!(error.message.len() < 400 && !error.message.contains("Encoded"), "{error}");
}

#[tokio::test]
async fn an_answer_that_is_not_ec2s_is_read_by_its_status() {
    for (status, kind) in [
        ("502 Bad Gateway", ErrorKind::Unavailable),
        ("403 Forbidden", ErrorKind::Denied),
        ("200 OK", ErrorKind::Unknown),
    ] {
        let (endpoint, _proxy) = proxy(status).await;
        let error = stranger(endpoint).await.survey(&scope()).await.unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(!error.message.contains("html"), "{error}");
    }
}

#[tokio::test]
async fn nobody_at_the_endpoint_is_said_so() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = stranger(format!("http://{free}")).await.survey(&scope()).await.unwrap_err();
    // The words by which a change is known never to have left.
    assert!(error.kind == ErrorKind::Unavailable && error.message.starts_with("cannot connect"), "{error}");
}

#[tokio::test]
async fn a_plain_http_endpoint_outside_loopback_is_refused() {
    let credentials = aws_credential_types::Credentials::new("key", "secret", None, None, "test");
    let refused = Aws::connect_as(&settings("http://ec2.example.com".to_owned()), credentials).await.unwrap_err();
    assert!(refused.kind == ErrorKind::Invalid && refused.message.contains("ALLOW_INSECURE_ENDPOINT"), "{refused}");
}

#[tokio::test]
async fn the_operators_ids_are_those_of_a_node() {
    let bench = AwsBench::start().await.unwrap();
    let machine = bench.world.machine(NODE).unwrap();
    let id = ProviderId::new(ec2::provider_id(&machine));
    let place = id.place().unwrap();
    assert_eq!((place.region.as_str(), place.zone.as_str()), (HOME.region, HOME.zone));
    assert_eq!(place.machine, ec2::instance_id(&machine));
}

async fn stranger(endpoint: String) -> Aws {
    install_tls();
    let credentials = aws_credential_types::Credentials::new("key", "secret", None, None, "test");
    Aws::connect_as(&settings(endpoint), credentials).await.unwrap()
}

/// Something between us and the cloud that answers every request with a page.
async fn proxy(status: &'static str) -> (String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let serve = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0_u8; 16 * 1024];
            let _ = stream.read(&mut request).await;
            let page = "<html><body>proxy</body></html>";
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-type: text/html\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{page}",
                page.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (endpoint, serve)
}
