//! Google Cloud keeps the contract, and what is particular to it.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{Arc, Once},
    time::Duration,
};

use async_trait::async_trait;
use e2e::{
    contract::{Bench, Home, NODE, ONE, Open, PRIVATE, TWO, Told, Words, furnish},
    simulator::Simulator,
    world::{Address, Fault, Latency, NewMachine, Point, Tier, World},
};
use google_cloud_auth::credentials::mds;
use ip_address_controller::cloud::{
    Attach, Cloud, Detach, ErrorKind, Finding, MachineId, Own, Provider, ProviderId, Restore, Scope,
    gcp::{Gcp, GcpSettings},
    metered::Metered,
};
use uuid::Uuid;

const HOME: Home = Home { account: "prod", region: "us-west1", zone: "us-west1-a", other_region: "us-east1" };

struct GcpBench {
    world: World,
    simulator: Simulator,
    cloud: Metered<Gcp>,
}

fn settings(simulator: &Simulator) -> GcpSettings {
    GcpSettings {
        endpoint: Some(simulator.endpoint()),
        allow_insecure: false,
        // Some clauses wait for it to pass.
        timeout: Duration::from_secs(2),
        operation_timeout: Duration::from_secs(20),
    }
}

#[async_trait]
impl Bench for GcpBench {
    async fn start() -> anyhow::Result<Self> {
        static TLS: Once = Once::new();
        // The clients need a TLS provider even where nothing is encrypted.
        TLS.call_once(|| rustls::crypto::ring::default_provider().install_default().unwrap());
        let world = World::new();
        furnish(&world, HOME)?;
        let simulator = Simulator::start(world.clone()).await?;
        // What the default chain finds on a machine of the cloud, but per test.
        let credentials =
            mds::Builder::default().with_endpoint(simulator.endpoint()).build_access_token_credentials()?;
        let cloud = Gcp::connect_as(&settings(&simulator), credentials).await?;
        Ok(Self { world, simulator, cloud: Metered::new(Provider::Gcp, cloud) })
    }

    fn world(&self) -> &World {
        &self.world
    }

    fn cloud(&self) -> &dyn Cloud {
        &self.cloud
    }

    fn scope(&self) -> Scope {
        Scope {
            provider: Provider::Gcp,
            account: HOME.account.to_owned(),
            region: HOME.region.to_owned(),
            resource_group: None,
        }
    }

    fn machine(&self, name: &str) -> MachineId {
        MachineId {
            place: ProviderId::new(format!("gce://{}/{}/{name}", HOME.account, HOME.zone)),
            instance: self.world.machine(name).map_or(0, |machine| machine.id).to_string(),
        }
    }

    fn out_of_reach(&self) -> MachineId {
        let (region, zone) = (HOME.other_region, format!("{}-b", HOME.other_region));
        let id = self.world.add_machine(NewMachine::new(HOME.account, region, &zone, "far-node"));
        let place = ProviderId::new(format!("gce://{}/{zone}/far-node", HOME.account));
        MachineId { place, instance: id.to_string() }
    }

    fn words(&self) -> Words {
        Words {
            attach: "instances.addAccessConfig",
            detach: "instances.deleteAccessConfig",
            survey: "addresses.list",
            attach_permission: "compute.instances.addAccessConfig",
            throttled: Fault::refuse(403, "rateLimitExceeded", "Quota exceeded for quota group 'default'"),
            fails_late: Some(Fault::fail_late("QUOTA_EXCEEDED", "Quota 'IN_USE_ADDRESSES' exceeded")),
            swaps_in_two: true,
            own_addresses: true,
            restores: true,
            told: Told {
                change: ("compute.instances.addAccessConfig", "POST"),
                read: ("compute.addresses.list", "GET"),
                id: None,
                place: Some((HOME.region, HOME.zone)),
                poll: Some("compute.zoneOperations.wait"),
                reads_again: true,
            },
            names_are_reused: true,
        }
    }
}

e2e::contract_tests!(GcpBench);

impl GcpBench {
    fn attach(&self, address: &str, machine: &str) -> Attach {
        Attach {
            scope: self.scope(),
            address: ip(address),
            machine: self.machine(machine),
            operation: Uuid::new_v4(),
            may_displace_own: true,
            gate: Arc::new(Open),
        }
    }

    fn detach(&self, address: &str, machine: &str) -> Detach {
        let Attach { scope, address, machine, operation, gate, .. } = self.attach(address, machine);
        Detach { scope, address, machine, operation, gate }
    }

    fn restore(&self, machine: &str, own: Own) -> Restore {
        let Attach { scope, machine, operation, gate, .. } = self.attach(ONE, machine);
        Restore { scope, machine, operation, own, gate }
    }

    fn config(&self, machine: &str) -> e2e::world::External {
        self.world.machine(machine).unwrap().external.unwrap()
    }

    /// A second client, less patient with operations.
    async fn impatient(&self) -> Gcp {
        let credentials = mds::Builder::default().with_endpoint(self.simulator.endpoint());
        let settings = GcpSettings { operation_timeout: Duration::from_millis(600), ..settings(&self.simulator) };
        Gcp::connect_as(&settings, credentials.build_access_token_credentials().unwrap()).await.unwrap()
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn failures(findings: &[Finding]) -> BTreeSet<&str> {
    findings.iter().filter(|finding| !finding.ok).map(|finding| finding.subject.as_str()).collect()
}

#[tokio::test]
async fn a_survey_is_one_call_and_one_more_for_each_further_500_addresses() {
    let bench = GcpBench::start().await.unwrap();
    bench.cloud.survey(&bench.scope()).await.unwrap();
    assert_eq!(bench.world.calls().len(), 1);
    for n in 0..600_u32 {
        let address = IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + n));
        bench.world.add_address(Address::new(HOME.account, HOME.region, &format!("many-{n}"), address));
    }
    bench.world.clear_calls();
    assert_eq!(bench.cloud.survey(&bench.scope()).await.unwrap().addresses.len(), 602);
    assert_eq!(bench.world.calls().len(), 2);
}

#[tokio::test]
async fn a_survey_of_which_one_page_fails_is_an_error() {
    let bench = GcpBench::start().await.unwrap();
    for n in 0..600_u32 {
        let address = IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + n));
        bench.world.add_address(Address::new(HOME.account, HOME.region, &format!("many-{n}"), address));
    }
    // The first page is answered, late; the second meets the fault.
    bench.world.fail_next("addresses.list", Fault::Latency(Duration::from_millis(1)));
    bench.world.fail_next("addresses.list", Fault::refuse(403, "rateLimitExceeded", "slow down"));
    let error = bench.cloud.survey(&bench.scope()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Throttled);
}

/// Compute Engine takes the machine's name, and tells with the operation whose it was by then (`targetId`).
#[tokio::test]
async fn p3_an_address_that_landed_on_another_machine_of_that_name_is_not_said_to_be_on_the_one_that_was_meant() {
    let bench = GcpBench::start().await.unwrap();
    let order = bench.attach(ONE, PRIVATE);
    let meant = order.machine.clone();
    let adding = bench.world.hold("instances.addAccessConfig", Point::Arrival);
    let meanwhile = async {
        adding.arrived(1).await;
        bench.world.replace_machine(PRIVATE).unwrap();
        adding.release();
    };
    let (attached, ()) = tokio::join!(bench.cloud.attach(&order), meanwhile);
    let error = attached.unwrap_err();
    assert_eq!((error.kind, error.settled), (ErrorKind::NotFound, true), "{error}");
    assert!(error.message.contains("another machine has its name"), "{error}");
    assert_eq!(bench.world.machine_of(ip(ONE)).as_deref(), Some(PRIVATE), "it works there all the same");
    assert_ne!(bench.machine(PRIVATE), meant);
}

#[tokio::test]
async fn the_tier_of_the_address_is_copied() {
    let bench = GcpBench::start().await.unwrap();
    let standard = "203.0.113.77";
    bench.world.add_address(Address::new(HOME.account, HOME.region, "standard", ip(standard)).tier(Tier::Standard));
    bench.cloud.attach(&bench.attach(standard, NODE)).await.unwrap();
    assert_eq!(bench.config(NODE).tier, Tier::Standard);
}

#[tokio::test]
async fn each_attempt_names_its_access_config_anew() {
    let bench = GcpBench::start().await.unwrap();
    let mut names = BTreeSet::new();
    for _ in 0..2 {
        bench.cloud.attach(&bench.attach(ONE, PRIVATE)).await.unwrap();
        names.insert(bench.config(PRIVATE).config);
        bench.cloud.detach(&bench.detach(ONE, PRIVATE)).await.unwrap();
        bench.cloud.restore(&bench.restore(PRIVATE, Own::default())).await.unwrap();
        names.insert(bench.config(PRIVATE).config);
    }
    assert_eq!(names.len(), 4);
}

#[tokio::test]
async fn a_machine_gets_back_the_tier_and_the_name_that_it_had() {
    let bench = GcpBench::start().await.unwrap();
    let machine = NewMachine::new(HOME.account, HOME.region, HOME.zone, "named");
    bench.world.add_machine(machine.ephemeral("External NAT", Tier::Standard, Some("mail.example.com.")));
    let seat = bench.cloud.inspect(&bench.machine("named").place).await.unwrap();
    let ip_address_controller::cloud::Interface::Ephemeral(own) = seat.interface else { panic!("{seat:?}") };
    bench.cloud.attach(&bench.attach(ONE, "named")).await.unwrap();
    bench.cloud.detach(&bench.detach(ONE, "named")).await.unwrap();
    // The cloud may refuse the old name for the new address; then it is an address without a name.
    for refused in [false, true] {
        if refused {
            bench.world.free_address(ip(ONE));
            let name = bench.config("named").config;
            assert!(name.starts_with("ipac-"), "{name}");
            bench.cloud.attach(&bench.attach(ONE, "named")).await.unwrap();
            bench.cloud.detach(&bench.detach(ONE, "named")).await.unwrap();
            bench.world.fail_next("instances.addAccessConfig", Fault::refuse(400, "invalid", "domain not verified"));
        }
        bench.cloud.restore(&bench.restore("named", own.clone())).await.unwrap();
        let config = bench.config("named");
        assert_eq!(config.tier, Tier::Standard);
        assert_eq!(config.ptr.as_deref(), (!refused).then_some("mail.example.com."));
    }
}

#[tokio::test]
async fn an_operation_that_does_not_end_leaves_the_outcome_open() {
    let bench = GcpBench::start().await.unwrap();
    let impatient = bench.impatient().await;
    bench.world.set_latency(Latency { operation: Duration::from_secs(3600), ..Latency::default() });
    let error = impatient.attach(&bench.attach(ONE, PRIVATE)).await.unwrap_err();
    assert_eq!((error.kind, error.settled), (ErrorKind::Timeout, false), "{error}");
    assert_eq!(bench.world.mutations().len(), 1);
}

#[tokio::test]
async fn an_operation_that_may_not_be_asked_about_leaves_the_outcome_open() {
    let bench = GcpBench::start().await.unwrap();
    bench.world.set_latency(Latency { operation: Duration::from_millis(300), ..Latency::default() });
    bench.world.deny("compute.zoneOperations.get");
    let error = bench.cloud.attach(&bench.attach(ONE, PRIVATE)).await.unwrap_err();
    assert_eq!((error.kind, error.settled), (ErrorKind::Denied, false), "{error}");
    assert!(error.message.contains("compute.zoneOperations.get"), "{error}");
}

#[tokio::test]
async fn a_wait_that_fails_for_a_moment_is_tried_again() {
    let bench = GcpBench::start().await.unwrap();
    bench.world.set_latency(Latency { operation: Duration::from_millis(300), ..Latency::default() });
    bench.world.fail_next("zoneOperations.wait", Fault::refuse(403, "rateLimitExceeded", "slow down"));
    bench.world.fail_next("zoneOperations.wait", Fault::refuse(500, "backendError", "once more"));
    bench.cloud.attach(&bench.attach(ONE, PRIVATE)).await.unwrap();
}

#[tokio::test]
async fn the_end_of_an_operation_is_heard_of_by_one_request() {
    let bench = GcpBench::start().await.unwrap();
    bench.world.set_latency(Latency { operation: Duration::from_millis(900), ..Latency::default() });
    bench.cloud.attach(&bench.attach(ONE, PRIVATE)).await.unwrap();
    let waits = bench.world.calls().into_iter().filter(|call| call.method == "zoneOperations.wait").count();
    assert_eq!((waits, bench.world.mutations().len()), (1, 1));
}

#[tokio::test]
async fn the_self_test_names_each_missing_permission_and_how_to_grant_it() {
    let bench = GcpBench::start().await.unwrap();
    bench.world.move_address(ip(TWO), NODE).unwrap();
    let findings = bench.cloud.check(&bench.scope()).await;
    assert_eq!(failures(&findings), BTreeSet::new(), "{findings:#?}");
    let missing = [
        "compute.addresses.use",
        "compute.instances.addAccessConfig",
        "compute.instances.deleteAccessConfig",
        "compute.zoneOperations.get",
    ];
    for permission in missing {
        bench.world.deny(permission);
    }
    let findings = bench.cloud.check(&bench.scope()).await;
    assert_eq!(failures(&findings), BTreeSet::from(missing), "{findings:#?}");
    for finding in findings.iter().filter(|finding| !finding.ok) {
        assert!(finding.message.contains(&format!("--add-permissions={}", finding.subject)), "{finding:?}");
    }
    bench.world.deny("compute.addresses.list");
    let findings = bench.cloud.check(&bench.scope()).await;
    assert!(failures(&findings).contains("compute.addresses.list"), "{findings:#?}");
    assert!(bench.world.mutations().is_empty());
}

/// Run by the next test in a process of its own: Google's chain reads the environment, which all tests share.
#[tokio::test]
#[ignore = "needs the environment that default_credentials_lead_to_the_metadata_server gives it"]
async fn survey_with_default_credentials() {
    rustls::crypto::ring::default_provider().install_default().unwrap();
    let settings = GcpSettings {
        endpoint: Some(std::env::var("GOOGLE_COMPUTE_CUSTOM_ENDPOINT").unwrap()),
        allow_insecure: false,
        timeout: Duration::from_secs(10),
        operation_timeout: Duration::from_secs(20),
    };
    let scope = Scope {
        provider: Provider::Gcp,
        account: HOME.account.to_owned(),
        region: HOME.region.to_owned(),
        resource_group: None,
    };
    let cloud = Gcp::connect(&settings).await.unwrap();
    assert_eq!(cloud.survey(&scope).await.unwrap().addresses.len(), 2);
}

#[tokio::test]
async fn default_credentials_lead_to_the_metadata_server() {
    let bench = GcpBench::start().await.unwrap();
    let child = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "survey_with_default_credentials"])
        .env("GOOGLE_COMPUTE_CUSTOM_ENDPOINT", bench.simulator.endpoint())
        .env("GCE_METADATA_HOST", bench.simulator.metadata_host())
        .env("NO_PROXY", "127.0.0.1")
        // Nothing that the chain looks at before the metadata server.
        .env_remove("GOOGLE_APPLICATION_CREDENTIALS")
        .env("HOME", "/nonexistent")
        .output()
        .await
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
    assert_eq!(bench.world.calls().len(), 1);
}
