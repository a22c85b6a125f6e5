//! The way out when nothing else is left: takes our finalizer, labels and taints off, without any cloud call. Addresses stay
//! where they are.

use std::io::Write;

use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;

use crate::{
    allocation::{observe::nodes::SlimNode, taints::NodeTaints, watch::Guarded},
    api::{ADDRESS_LABEL, ALLOCATION_LABEL, FINALIZER, NetIPAllocation, READY_LABEL},
    lifecycle::finalizer::{self, Release},
    run,
    settings::{Released, Settings},
};

/// A call that failed. What was done before it is done, and may be done again.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {what}: {source}")]
pub struct ReleaseError {
    pub verb: &'static str,
    pub what: What,
    pub source: Box<kube::Error>,
}

/// What it was about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The allocation of this name, or all of them.
    Allocation(Option<String>),
    /// The node of this name, or all of them.
    Node(Option<String>),
}

impl std::fmt::Display for What {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Allocation(None) => f.write_str("NetIPAllocations"),
            Self::Allocation(Some(name)) => write!(f, "NetIPAllocation {name}"),
            Self::Node(None) => f.write_str("nodes"),
            Self::Node(Some(name)) => write!(f, "node {name}"),
        }
    }
}

impl ReleaseError {
    fn of(verb: &'static str, what: What) -> impl FnOnce(kube::Error) -> Self {
        move |source| Self { verb, what, source: Box::new(source) }
    }
}

/// Releases one allocation or all of them. Repeating it is harmless.
///
/// # Errors
/// The first call that failed, in words.
pub async fn release(_settings: &Settings, which: &Released) -> Result<(), String> {
    let (client, _) = run::client().await.map_err(|error| format!("no cluster to talk to: {error}"))?;
    // Whoever does not read on must not stop it halfway.
    let mut tell = |line: String| {
        let _ = writeln!(std::io::stdout(), "{line}");
    };
    with(&client, which, &mut tell).await.map_err(|error| error.to_string())
}

/// The same, as whom the client speaks for. `tell` is told of each that is released.
///
/// One that cannot be read is released as well, but for a taint: which one it was is in what cannot be read.
///
/// # Errors
/// As [`release`].
pub async fn with(client: &Client, which: &Released, tell: &mut dyn FnMut(String)) -> Result<(), ReleaseError> {
    let api: Api<Guarded> = Api::all(client.clone());
    let every = ReleaseError::of("list", What::Allocation(None));
    let there = api.list(&ListParams::default()).await.map_err(every)?.items;
    let (all, others): (Vec<Guarded>, Vec<Guarded>) = match which {
        Released::All => (there, Vec::new()),
        Released::One(name) => there.into_iter().partition(|object| object.name_any() == *name),
    };
    if let (Released::One(name), []) = (which, all.as_slice()) {
        // The API server says best that there is none.
        api.get(name).await.map_err(ReleaseError::of("get", What::Allocation(Some(name.clone()))))?;
    }
    untaint(client, &NodeTaints::without(readable(&all), readable(&others))).await?;
    for object in all {
        let name = object.name_any();
        unlabel(client, &name).await?;
        let unread = object.0.as_ref().err().map(|invalid| invalid.error.clone());
        let_go(&api, object).await?;
        tell(match unread {
            None => format!("released {name}: finalizer, labels and taints are off, addresses stay where they are"),
            Some(why) => format!(
                "released {name}: finalizer and labels are off, addresses stay where they are; a taint of its \
                 spec.nodeTaint may be left on nodes, because it cannot be read: {why}"
            ),
        });
    }
    Ok(())
}

fn readable(objects: &[Guarded]) -> impl Iterator<Item = &NetIPAllocation> {
    objects.iter().filter_map(|object| object.0.as_ref().ok())
}

/// Somebody else's write makes the version another, and nothing else: it is read again.
async fn let_go(api: &Api<Guarded>, mut object: Guarded) -> Result<(), ReleaseError> {
    let name = object.name_any();
    loop {
        match finalizer::clear(api, &object, FINALIZER, Release::Done).await {
            Err(kube::Error::Api(status)) if status.is_conflict() => {
                let read = ReleaseError::of("get", What::Allocation(Some(name.clone())));
                match api.get_opt(&name).await.map_err(read)? {
                    Some(anew) => object = anew,
                    None => return Ok(()),
                }
            }
            ended => return ended.map(drop).map_err(ReleaseError::of("patch", What::Allocation(Some(name)))),
        }
    }
}

async fn unlabel(client: &Client, allocation: &str) -> Result<(), ReleaseError> {
    let api: Api<SlimNode> = Api::all(client.clone());
    let params = ListParams::default().labels(&format!("{ALLOCATION_LABEL}={allocation}"));
    let nodes = api.list(&params).await.map_err(ReleaseError::of("list", What::Node(None)))?;
    for node in &nodes.items {
        let labels = json!({READY_LABEL: null, ALLOCATION_LABEL: null, ADDRESS_LABEL: null});
        let patch = Patch::Merge(json!({"metadata": {"uid": node.metadata.uid, "labels": labels}}));
        let name = node.name_any();
        let patched = api.patch(&name, &PatchParams::default(), &patch).await;
        patched.map_err(ReleaseError::of("patch", What::Node(Some(name))))?;
    }
    Ok(())
}

/// A merge patch replaces the list of taints whole, so it is for the very version that was read: another writer's taint
/// is not lost, and what it wrote is read again.
async fn untaint(client: &Client, taints: &NodeTaints) -> Result<(), ReleaseError> {
    let api: Api<SlimNode> = Api::all(client.clone());
    let nodes = if taints.is_empty() {
        Vec::new()
    } else {
        api.list(&ListParams::default()).await.map_err(ReleaseError::of("list", What::Node(None)))?.items
    };
    for node in nodes {
        let name = node.name_any();
        let what = || What::Node(Some(name.clone()));
        let mut node = Some(node);
        while let Some(list) = node.as_ref().and_then(|node| taints.on(node)) {
            let meta = node.map(|node| node.metadata).unwrap_or_default();
            let patch = Patch::Merge(json!({
                "metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version},
                "spec": {"taints": list},
            }));
            match api.patch(&name, &PatchParams::default(), &patch).await {
                Err(kube::Error::Api(status)) if status.is_not_found() => break,
                Err(kube::Error::Api(status)) if status.is_conflict() => {}
                Err(error) => return Err(ReleaseError::of("patch", what())(error)),
                Ok(_) => break,
            }
            node = api.get_opt(&name).await.map_err(ReleaseError::of("get", what()))?;
        }
    }
    Ok(())
}
