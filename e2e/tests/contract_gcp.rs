//! Google Cloud keeps the contract, and what is particular to it.

use std::{sync::Once, time::Duration};

use async_trait::async_trait;
use e2e::{
    contract::{Bench, Home, Words, furnish},
    simulator::Simulator,
    world::{Fault, World},
};
use google_cloud_auth::credentials::mds;
use ip_address_controller::cloud::{
    Cloud, MachineId, Provider, ProviderId, Scope,
    gcp::{Gcp, GcpSettings},
};

const HOME: Home = Home { account: "prod", region: "us-west1", zone: "us-west1-a", other_region: "us-east1" };

struct GcpBench {
    world: World,
    simulator: Simulator,
    cloud: Gcp,
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
        Ok(Self { world, simulator, cloud })
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

    fn words(&self) -> Words {
        Words {
            attach: "instances.addAccessConfig",
            detach: "instances.deleteAccessConfig",
            survey: "addresses.list",
            attach_permission: "compute.instances.addAccessConfig",
            throttled: Fault::refuse(403, "rateLimitExceeded", "Quota exceeded for quota group 'default'"),
            fails_late: Some(Fault::fail_late("RESOURCE_NOT_READY", "The resource is not ready")),
            swaps_in_two: true,
        }
    }
}

e2e::contract_tests!(GcpBench);
