//! A furnished world with EC2 before it, and the provider connected to that.

use std::{
    net::IpAddr,
    sync::{Arc, Once},
    time::Duration,
};

use async_trait::async_trait;
use aws_credential_types::Credentials;
use e2e::{
    contract::{Bench, Home, ONE, Open, Told, Words, furnish},
    simulator::{Simulator, ec2},
    world::{Call, Fault, Hold, NewMachine, World},
};
use ip_address_controller::cloud::{
    Attach, Cloud, Detach, Holder, MachineId, Own, Provider, ProviderId, Restore, Scope,
    aws::{Aws, AwsSettings},
    metered::Metered,
};
use uuid::Uuid;

pub const HOME: Home =
    Home { account: "123456789012", region: "us-west-2", zone: "us-west-2a", other_region: "eu-central-1" };
/// A local zone of the region, and the group of addresses that work there.
pub const LOCAL_ZONE: &str = "us-west-2-lax-1a";
pub const LOCAL_GROUP: &str = "us-west-2-lax-1";

pub struct AwsBench {
    pub world: World,
    pub simulator: Simulator,
    pub cloud: Metered<Aws>,
}

pub fn settings(endpoint: String) -> AwsSettings {
    AwsSettings {
        endpoint: Some(endpoint),
        allow_insecure: false,
        // Some clauses wait for it to pass.
        timeout: Duration::from_secs(2),
        operation_timeout: Duration::from_secs(20),
    }
}

pub fn install_tls() {
    static TLS: Once = Once::new();
    TLS.call_once(|| rustls::crypto::ring::default_provider().install_default().unwrap());
}

pub fn scope() -> Scope {
    Scope { provider: Provider::Aws, account: String::new(), region: HOME.region.to_owned(), resource_group: None }
}

#[async_trait]
impl Bench for AwsBench {
    async fn start() -> anyhow::Result<Self> {
        install_tls();
        let world = World::new();
        furnish(&world, HOME)?;
        let simulator = Simulator::start(world.clone()).await?;
        let cloud = Self::connect(&world, &simulator).await;
        Ok(Self { world, simulator, cloud })
    }

    fn world(&self) -> &World {
        &self.world
    }

    fn cloud(&self) -> &dyn Cloud {
        &self.cloud
    }

    fn scope(&self) -> Scope {
        scope()
    }

    fn machine(&self, name: &str) -> MachineId {
        let (place, instance) = match self.world.machine(name) {
            Some(machine) => (ec2::provider_id(&machine), ec2::instance_id(&machine)),
            None => (format!("aws:///{}/i-0dead", HOME.zone), "i-0dead".to_owned()),
        };
        MachineId { place: ProviderId::new(place), instance }
    }

    fn out_of_reach(&self) -> MachineId {
        self.world.add_machine(NewMachine::new(HOME.account, HOME.region, LOCAL_ZONE, "local-node"));
        self.machine("local-node")
    }

    fn words(&self) -> Words {
        Words {
            attach: "AssociateAddress",
            detach: "DisassociateAddress",
            survey: "DescribeAddresses",
            attach_permission: "ec2:AssociateAddress",
            throttled: Fault::refuse(503, "RequestLimitExceeded", "Request limit exceeded."),
            fails_late: None,
            swaps_in_two: false,
            told: Told {
                change: ("EC2.AssociateAddress", "POST"),
                read: ("EC2.DescribeAddresses", "POST"),
                id: Some("aws.request_id"),
                place: Some((HOME.region, HOME.zone)),
                poll: None,
                reads_again: true,
            },
            names_are_reused: false,
            own_addresses: true,
            restores: true,
        }
    }
}

impl AwsBench {
    /// A process of its own, as far as memory goes.
    pub async fn connect(world: &World, simulator: &Simulator) -> Metered<Aws> {
        let key = world.issue_token().unwrap();
        let credentials = Credentials::new(key, "simulated-secret", None, None, "test");
        let cloud = Aws::connect_as(&settings(simulator.endpoint()), credentials).await.unwrap();
        Metered::new(Provider::Aws, cloud)
    }

    pub fn attach(&self, address: &str, machine: &str) -> Attach {
        Attach {
            scope: scope(),
            address: ip(address),
            machine: self.machine(machine),
            operation: Uuid::new_v4(),
            may_displace_own: true,
            gate: Arc::new(Open),
        }
    }

    pub fn detach(&self, address: &str, machine: &str) -> Detach {
        let Attach { scope, address, machine, operation, gate, .. } = self.attach(address, machine);
        Detach { scope, address, machine, operation, gate }
    }

    pub fn restore(&self, machine: &str) -> Restore {
        let Attach { scope, machine, operation, gate, .. } = self.attach(ONE, machine);
        Restore { scope, machine, operation, own: Own::default(), gate }
    }

    pub fn on(&self, machine: &str) -> Holder {
        Holder::Machine(self.machine(machine).place)
    }

    pub fn calls(&self, method: &str) -> Vec<Call> {
        self.world.calls().into_iter().filter(|call| call.method == method).collect()
    }

    /// A machine with two interfaces, as the VPC CNI makes them.
    pub fn add_wide(&self, name: &str) {
        self.world.add_machine(NewMachine::new(HOME.account, HOME.region, HOME.zone, name).interfaces(2));
    }
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Until a call waits there; one that never comes fails the test.
pub async fn arrived(held: &Hold) {
    tokio::time::timeout(Duration::from_secs(5), held.arrived(1)).await.expect("no call has come");
}
