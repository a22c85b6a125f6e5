//! The two watches of a replica, a standby's too: what they show is kept, and wakes those whom it concerns.

use std::{pin::pin, time::Duration};

use futures::{FutureExt, Stream, StreamExt};
use kube::{Client, ResourceExt};
use kube_runtime::reflector::Store;
use tokio::task::JoinSet;

use crate::{
    allocation::{
        observe::nodes::Nodes,
        watch::{self, Cause, Change, Guarded, Synced, Wake},
    },
    metrics,
};

/// What is seen, and who is woken by it.
#[derive(Clone)]
pub(super) struct View {
    pub allocations: Store<Guarded>,
    pub nodes: Nodes,
    pub wake: Wake,
    pub shown: Shown,
}

/// See the module. Dropping it ends both.
pub(super) struct Watches {
    pub view: View,
    listening: JoinSet<&'static str>,
}

impl Watches {
    /// Begins both, for allocations with these labels.
    pub fn begin(client: &Client, selector: Option<String>) -> Self {
        let (wake, shown) = (Wake::new(), Shown::default());
        let (allocations, writer) = watch::store();
        let changed = watch::allocations(client.clone(), selector, writer, shown.allocations.clone());
        let (nodes, writer) = watch::store();
        let node_changed = watch::nodes(client.clone(), writer, shown.nodes.clone());
        let nodes = Nodes::new(nodes);
        let view = View { allocations, nodes, wake, shown };
        Self { listening: listen(&view, changed, node_changed), view }
    }

    /// Waits until one has ended, and says which: a watch that fails goes on, so this is a bug.
    pub async fn ended(&mut self) -> String {
        match self.listening.join_next().await {
            Some(Ok(of)) => format!("the watch of {of} ended"),
            Some(Err(broken)) => format!("a watch broke off: {broken}"),
            None => "nothing is watched".to_owned(),
        }
    }
}

fn listen(
    view: &View,
    allocations: impl Stream<Item = Change> + Send + 'static,
    nodes: impl Stream<Item = Change> + Send + 'static,
) -> JoinSet<&'static str> {
    let mut listening = JoinSet::new();
    listening
        .spawn(hear_allocations(allocations, view.allocations.clone(), view.wake.clone()).map(|()| "NetIPAllocations"));
    listening.spawn(hear_nodes(nodes, view.nodes.clone(), view.wake.clone()).map(|()| "Nodes"));
    listening
}

/// Whether each has shown everything once.
#[derive(Clone, Default)]
pub(super) struct Shown {
    allocations: Synced,
    nodes: Synced,
}

impl Shown {
    /// What is missing, in words.
    pub fn missing(&self) -> Option<&'static str> {
        match (self.allocations.is(), self.nodes.is()) {
            (false, _) => Some("NetIPAllocations are not listed yet; is the CRD installed?"),
            (_, false) => Some("Nodes are not listed yet"),
            (true, true) => None,
        }
    }

    pub async fn everything(&self) {
        while self.missing().is_some() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn hear_allocations(changes: impl Stream<Item = Change>, known: Store<Guarded>, wake: Wake) {
    let mut changes = pin!(changes);
    while let Some(change) = changes.next().await {
        // A standby too: what the next leader counts first is an increase wherever it was scraped before.
        match change {
            Change::Of(name) => {
                metrics::allocation_seen(&name);
                wake.one(&name, Cause::Object);
            }
            Change::All => {
                known.state().iter().for_each(|object| metrics::allocation_seen(&object.name_any()));
                wake.all(Cause::Object);
            }
        }
    }
}

async fn hear_nodes(changes: impl Stream<Item = Change>, nodes: Nodes, wake: Wake) {
    let mut changes = pin!(changes);
    while let Some(change) = changes.next().await {
        nodes.changed();
        match change {
            Change::Of(name) => wake.node(&name),
            Change::All => wake.all(Cause::Node),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    fn watches(nodes: impl Stream<Item = Change> + Send + 'static) -> Watches {
        let (allocations, nodes_seen) = (watch::store().0, Nodes::new(watch::store().0));
        let view = View { allocations, nodes: nodes_seen, wake: Wake::new(), shown: Shown::default() };
        Watches { listening: listen(&view, stream::pending(), nodes), view }
    }

    #[tokio::test]
    async fn the_end_of_a_watch_does_not_go_unheard() {
        assert_eq!(watches(stream::empty()).ended().await, "the watch of Nodes ended");
        let broken = stream::iter([()]).map(|()| -> Change { panic!("nobody expected that") });
        assert!(watches(broken).ended().await.contains("nobody expected that"));
    }
}
