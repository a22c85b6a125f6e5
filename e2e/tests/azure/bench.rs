//! A furnished world behind the façade of Azure, and the real client connected to it.

use std::{
    net::IpAddr,
    sync::{Arc, Once},
    time::Duration,
};

use async_trait::async_trait;
use azure_core::auth::{AccessToken, TokenCredential};
use e2e::{
    contract::{Bench, Home, Open, Told, Words, furnish_private},
    simulator::{Simulator, arm},
    world::{Fault, MachineKey, NewMachine, World},
};
use ip_address_controller::cloud::{
    Attach, Cloud, Detach, MachineId, Provider, ProviderId, Restore, Scope,
    azure::{Azure, AzureSettings},
    metered::Metered,
};
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

pub const SUBSCRIPTION: &str = "0a1b2c3d-0000-4000-8000-00000000cafe";
pub const HOME: Home =
    Home { account: SUBSCRIPTION, region: "westeurope", zone: "westeurope-1", other_region: "northeurope" };

pub struct AzureBench {
    pub world: World,
    pub simulator: Simulator,
    pub cloud: Metered<Azure>,
}

/// Tokens straight from the world, without a wire.
#[derive(Debug)]
pub struct OfWorld(pub World);

#[async_trait]
impl TokenCredential for OfWorld {
    async fn get_token(&self, _: &[&str]) -> azure_core::Result<AccessToken> {
        let token = self.0.issue_token().unwrap_or_else(|| "revoked".to_owned());
        Ok(AccessToken::new(token, OffsetDateTime::now_utc() + Duration::from_secs(3600)))
    }

    async fn clear_cache(&self) -> azure_core::Result<()> {
        Ok(())
    }
}

pub fn settings(endpoint: String) -> AzureSettings {
    AzureSettings {
        endpoint: Some(endpoint.clone()),
        authority: Some(endpoint),
        allow_insecure: false,
        // Some clauses wait for it to pass.
        timeout: Duration::from_secs(2),
        operation_timeout: Duration::from_secs(20),
    }
}

/// The clients need a TLS provider even where nothing is encrypted.
pub fn install_tls() {
    static TLS: Once = Once::new();
    TLS.call_once(|| rustls::crypto::ring::default_provider().install_default().unwrap());
}

pub fn scope() -> Scope {
    Scope {
        provider: Provider::Azure,
        account: SUBSCRIPTION.to_owned(),
        region: HOME.region.to_owned(),
        resource_group: None,
    }
}

#[async_trait]
impl Bench for AzureBench {
    async fn start() -> anyhow::Result<Self> {
        install_tls();
        let world = World::new();
        furnish_private(&world, HOME)?;
        let simulator = Simulator::start(world.clone()).await?;
        let credential = Arc::new(OfWorld(world.clone()));
        let cloud = Azure::connect_as(&settings(simulator.endpoint()), credential).await?;
        Ok(Self { world, simulator, cloud: Metered::new(Provider::Azure, cloud) })
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
        let key = MachineKey::new(SUBSCRIPTION, HOME.zone, name);
        MachineId {
            place: ProviderId::new(arm::provider_id(&key)),
            instance: self.world.machine(name).map_or_else(|| Uuid::nil().to_string(), |it| arm::vm_id(&it)),
        }
    }

    fn out_of_reach(&self) -> MachineId {
        let zone = format!("{}-1", HOME.other_region);
        self.world.add_machine(NewMachine::new(SUBSCRIPTION, HOME.other_region, &zone, "far-node").private());
        self.machine("far-node")
    }

    fn words(&self) -> Words {
        Words {
            attach: arm::ATTACH,
            detach: arm::DETACH,
            survey: "publicIPAddresses.listAll",
            attach_permission: "Microsoft.Network/networkInterfaces/write",
            throttled: Fault::refuse(429, "TooManyRequests", "The request is being throttled"),
            fails_late: Some(Fault::fail_late("PublicIPCountLimitReached", "Cannot create more public addresses")),
            swaps_in_two: false,
            told: Told {
                change: ("ARM.networkInterfaces.createOrUpdate", "PUT"),
                read: ("ARM.publicIPAddresses.list", "GET"),
                id: Some("azure.service.request.id"),
                place: None,
                poll: Some("ARM.locations.operations.get"),
                reads_again: false,
            },
            names_are_reused: true,
            own_addresses: false,
            restores: false,
        }
    }
}

impl AzureBench {
    pub fn attach(&self, address: &str, machine: &str) -> Attach {
        Attach {
            scope: self.scope(),
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
        let Attach { scope, machine, operation, gate, .. } = self.attach("203.0.113.1", machine);
        Restore { scope, machine, operation, own: Default::default(), gate }
    }

    /// A second client, with other settings.
    pub async fn another(&self, change: impl FnOnce(&mut AzureSettings)) -> Azure {
        let mut settings = settings(self.simulator.endpoint());
        change(&mut settings);
        Azure::connect_as(&settings, Arc::new(OfWorld(self.world.clone()))).await.unwrap()
    }

    /// The methods that were called, in that order.
    pub fn called(&self) -> Vec<String> {
        self.world.calls().into_iter().map(|call| call.method).collect()
    }

    /// Something of the façade as anybody would get it.
    pub async fn get(&self, path_and_query: &str) -> Value {
        let url = format!("{}{path_and_query}", self.simulator.endpoint());
        let token = self.world.issue_token().unwrap();
        let answer = reqwest::Client::new().get(url).bearer_auth(token).send().await.unwrap();
        answer.error_for_status().unwrap().json().await.unwrap()
    }

    /// A machine's interface.
    pub async fn interface(&self, machine: &str) -> Value {
        let key = MachineKey::new(SUBSCRIPTION, HOME.zone, machine);
        self.get(&format!("{}?api-version={}", arm::interface_id(&key), arm::NETWORK)).await
    }
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
