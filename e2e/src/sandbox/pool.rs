//! The machines of the simulated cloud and their Nodes: so many of them, whatever befalls the Nodes.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use e2e::{kubelet, stage::Venue, world::World};
use k8s_openapi::{api::core::v1::Node, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
};
use tokio::task::JoinHandle;

/// Selects the Nodes, and keeps others' pods off them as a taint.
pub const SIMULATED: &str = "netinfra.darkbrains.com/simulated";

/// How often Nodes are looked at, and their Leases renewed.
const BEAT: Duration = Duration::from_secs(5);

/// See the module.
pub struct Pool {
    pub client: Client,
    pub world: World,
    pub venue: &'static Venue,
    pub names: Vec<String>,
    /// What goes when the release is uninstalled, and the Nodes with it.
    pub owner: Option<OwnerReference>,
}

impl Pool {
    /// Nodes of an earlier life stand for machines that are gone.
    ///
    /// # Errors
    /// The API server's.
    pub async fn clear(&self) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        for node in nodes.list(&ListParams::default().labels(SIMULATED)).await? {
            nodes.delete(&node.name_any(), &DeleteParams::default()).await?;
        }
        Ok(())
    }

    /// Keeps the Nodes alive for ever. A Node that somebody deletes takes its machine along, and a new one comes.
    pub async fn keep(&self) {
        let mut beats = tokio::time::interval(BEAT);
        let mut kubelets = BTreeMap::new();
        loop {
            beats.tick().await;
            for (number, name) in self.names.iter().enumerate() {
                if let Err(error) = self.keep_one(number, name, &mut kubelets).await {
                    tracing::warn!("node {name}: {error:#}");
                }
            }
        }
    }

    async fn keep_one(&self, number: usize, name: &str, kubelets: &mut BTreeMap<String, JoinHandle<()>>) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        match (nodes.get_opt(name).await?, self.world.machine(name)) {
            (Some(_), Some(_)) => kubelet::beat(&self.client, name, BEAT).await?,
            (None, Some(_)) => {
                tracing::info!("node {name} was deleted: its machine goes, and another comes");
                self.world.delete_machine(name);
            }
            (_, None) => {
                self.create(number, name, &nodes).await?;
                kubelet::beat(&self.client, name, BEAT).await?;
            }
        }
        if kubelets.get(name).is_none_or(JoinHandle::is_finished) {
            kubelets.insert(name.to_owned(), tokio::spawn(pods(self.client.clone(), name.to_owned())));
        }
        Ok(())
    }

    async fn create(&self, number: usize, name: &str, nodes: &Api<Node>) -> Result<()> {
        let Some(zone) = self.venue.zones.iter().cycle().nth(number) else { return Ok(()) };
        self.world.add_machine(self.venue.machine(zone, name));
        let Some(machine) = self.world.machine(name) else { return Ok(()) };
        let mut node =
            self.venue.node(&machine).label(SIMULATED, "true").taint(SIMULATED, "true", "NoSchedule").into_node();
        node.metadata.owner_references = self.owner.clone().map(|owner| vec![owner]);
        if let Err(error) = nodes.create(&PostParams::default(), &node).await {
            self.world.delete_machine(name);
            return Err(error.into());
        }
        tracing::info!("node {name} in {zone}");
        Ok(())
    }
}

async fn pods(client: Client, node: String) {
    if let Err(error) = kubelet::pretend_pods(client, node.clone()).await {
        tracing::warn!("pods of node {node}: {error:#}");
    }
}
