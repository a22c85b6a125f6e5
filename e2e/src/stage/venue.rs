//! What differs between the clouds on stage: where things stand, what nodes say of themselves, how the operator finds the
//! simulated cloud and its credentials, and what the calls of a survey are called.

use std::net::IpAddr;

use ip_address_controller::cloud::Provider;

use crate::{
    cluster::NodeSpec,
    simulator::{Simulator, arm, ec2},
    world::{Machine, NewMachine, Quota, World},
};

/// One cloud on stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Venue {
    pub provider: Provider,
    /// What people call it.
    pub name: &'static str,
    /// Project, account or subscription.
    pub account: &'static str,
    pub region: &'static str,
    /// As in the node label `topology.kubernetes.io/zone`.
    pub zones: [&'static str; 2],
    /// For addresses that are in the wrong one.
    pub other_region: &'static str,
    pub other_zone: &'static str,
    /// The calls of one survey.
    pub survey: &'static [&'static str],
    /// The permissions of the first call of a survey, and of the call that puts an address on.
    pub survey_permission: &'static str,
    pub attach_permission: &'static str,
    /// The provider ID of a node that can never take an address, and a word of the sentence that says so.
    pub unsupported: (&'static str, &'static str),
    /// A machine has an external address of its own when it starts.
    pub own_addresses: bool,
}

impl Venue {
    pub const GCP: Venue = Venue {
        provider: Provider::Gcp,
        name: "Compute Engine",
        account: "stage-project",
        region: "us-west1",
        zones: ["us-west1-a", "us-west1-b"],
        other_region: "us-east1",
        other_zone: "us-east1-b",
        survey: &["addresses.list"],
        survey_permission: "compute.addresses.list",
        attach_permission: "compute.instances.addAccessConfig",
        unsupported: ("gce://stage-project/us-west1-a/gk3-auto-pool-1", "Autopilot"),
        own_addresses: true,
    };

    pub const AWS: Venue = Venue {
        provider: Provider::Aws,
        name: "Amazon EC2",
        account: "123456789012",
        region: "us-west-2",
        zones: ["us-west-2a", "us-west-2b"],
        other_region: "us-east-1",
        other_zone: "us-east-1a",
        survey: &["DescribeAddresses"],
        survey_permission: "ec2:DescribeAddresses",
        attach_permission: "ec2:AssociateAddress",
        unsupported: ("aws:///us-west-2a/0a1b2c3d/fargate-ip-10-0-1-2.us-west-2.compute.internal", "Fargate"),
        own_addresses: true,
    };

    pub const AZURE: Venue = Venue {
        provider: Provider::Azure,
        name: "Azure Resource Manager",
        account: "0b1f6471-1bf0-4dda-aec3-111122223333",
        region: "westeurope",
        zones: ["westeurope-1", "westeurope-2"],
        other_region: "northeurope",
        other_zone: "northeurope-1",
        survey: &["publicIPAddresses.listAll", "networkInterfaces.listAll"],
        survey_permission: "Microsoft.Network/publicIPAddresses/read",
        attach_permission: "Microsoft.Network/networkInterfaces/write",
        unsupported: (
            "azure:///subscriptions/0b1f6471-1bf0-4dda-aec3-111122223333/resourceGroups/mc_nodes/providers/Microsoft.Compute/virtualMachineScaleSets/default/virtualMachines/0",
            "Uniform",
        ),
        own_addresses: false,
    };

    /// That of the provider.
    pub fn of(provider: Provider) -> &'static Venue {
        match provider {
            Provider::Gcp => &Self::GCP,
            Provider::Aws => &Self::AWS,
            Provider::Azure => &Self::AZURE,
        }
    }

    /// How often an account may call, as the cloud publishes it: Google Cloud by the minute for reads, changes and waits for
    /// operations (cloud.google.com/compute/api-quota), AWS by the action, of which only the coarsest is kept
    /// (docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html), Azure by reads and writes
    /// (learn.microsoft.com/azure/azure-resource-manager/management/request-limits-and-throttling).
    pub fn quotas(&self) -> Vec<Quota> {
        let quota = |name, covers, burst, per_second| Quota { name, covers, burst, per_second };
        match self.provider {
            Provider::Gcp => vec![
                quota("reads", |method, mutating| !mutating && !is_wait(method), 1500, 25.0),
                quota("changes", |_, mutating| mutating, 1500, 25.0),
                quota("heavy-weight reads", |method, _| is_wait(method), 750, 12.5),
            ],
            Provider::Aws => vec![
                quota("describe", |_, mutating| !mutating, 100, 20.0),
                quota("mutating", |_, mutating| mutating, 50, 5.0),
            ],
            Provider::Azure => vec![
                quota("reads", |_, mutating| !mutating, 250, 25.0),
                quota("writes", |_, mutating| mutating, 200, 10.0),
            ],
        }
    }

    /// Every region with its zones.
    pub fn places(&self) -> [(&'static str, &[&'static str]); 2] {
        [(self.region, &self.zones), (self.other_region, std::slice::from_ref(&self.other_zone))]
    }

    /// The call that puts an address on a machine whose name begins so, and a part of its target that no other attach has.
    /// `None` for an address that is not reserved.
    pub fn attach(&self, world: &World, ip: IpAddr, machine: &str) -> Option<(&'static str, String)> {
        Some(match self.provider {
            Provider::Gcp => ("instances.addAccessConfig", format!("instances/{machine}")),
            Provider::Aws => {
                ("AssociateAddress", world.inventory(|inventory| inventory.address(ip).map(ec2::allocation_id))?)
            }
            Provider::Azure => (arm::ATTACH, format!("networkinterfaces/{machine}")),
        })
    }

    /// The call that takes off what a machine has now, and a part of its target that no other detach has. `None` for a
    /// machine that has nothing.
    pub fn detach(&self, world: &World, machine: &str) -> Option<(&'static str, String)> {
        let holder = world.machine(machine)?;
        let external = holder.external.as_ref()?;
        Some(match self.provider {
            Provider::Gcp => ("instances.deleteAccessConfig", format!("instances/{machine}")),
            Provider::Aws => ("DisassociateAddress", ec2::association_id(&holder, external)),
            Provider::Azure => (arm::DETACH, format!("networkinterfaces/{machine}")),
        })
    }

    /// A machine as it starts in that zone.
    pub fn machine(&self, zone: &str, name: &str) -> NewMachine {
        let region = if zone == self.other_zone { self.other_region } else { self.region };
        let machine = NewMachine::new(self.account, region, zone, name);
        if self.own_addresses { machine } else { machine.private() }
    }

    /// The Node of a machine, as its kubelet and cloud controller would write it.
    pub fn node(&self, machine: &Machine) -> NodeSpec {
        let node = NodeSpec::new(&machine.key.name)
            .label("topology.kubernetes.io/zone", &machine.key.zone)
            .label("topology.kubernetes.io/region", &machine.region)
            .label("kubernetes.io/os", "linux")
            .provider_id(self.provider_id(machine));
        match self.provider {
            Provider::Gcp => node.annotation("container.googleapis.com/instance_id", machine.id.to_string()),
            Provider::Aws | Provider::Azure => node,
        }
    }

    fn provider_id(&self, machine: &Machine) -> String {
        match self.provider {
            Provider::Gcp => format!("gce://{}/{}/{}", machine.key.account, machine.key.zone, machine.key.name),
            Provider::Aws => ec2::provider_id(machine),
            Provider::Azure => arm::provider_id(&machine.key),
        }
    }

    /// Where the operator finds the simulated cloud, and credentials for it by the cloud's own chain.
    pub fn environment(&self, simulator: &Simulator) -> Vec<(&'static str, String)> {
        let mut environment = match self.provider {
            Provider::Gcp => vec![
                ("GOOGLE_COMPUTE_CUSTOM_ENDPOINT", simulator.endpoint()),
                ("GCE_METADATA_HOST", simulator.metadata_host()),
            ],
            Provider::Aws => vec![
                ("AWS_ENDPOINT_URL", simulator.endpoint()),
                ("AWS_CONTAINER_CREDENTIALS_FULL_URI", simulator.pod_identity_uri()),
                ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "a-pod's-own-token".to_owned()),
                ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
            ],
            Provider::Azure => vec![
                ("AZURE_RESOURCE_MANAGER_ENDPOINT", simulator.endpoint()),
                ("AZURE_AUTHORITY_HOST", simulator.endpoint()),
                ("AZURE_TENANT_ID", "72f988bf-0000-0000-0000-2d7cd011db47".to_owned()),
                ("AZURE_CLIENT_ID", "11111111-2222-3333-4444-555555555555".to_owned()),
                ("AZURE_CLIENT_SECRET", "simulated".to_owned()),
            ],
        };
        environment.push(("NO_PROXY", "127.0.0.1,localhost".to_owned()));
        environment
    }
}

/// Waits for the end of an operation of Google Cloud.
fn is_wait(method: &str) -> bool {
    method == "zoneOperations.wait"
}
