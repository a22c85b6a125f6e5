//! A cloud to try the operator with, in any cluster: the simulator, a few Nodes whose machines it has, and their kubelets.
//!
//! What the chart runs with `simulator.enabled`. Its cloud lives in memory: with a new pod all machines are new ones.

mod pool;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use e2e::{
    simulator::Simulator,
    stage::Venue,
    world::{Address, Latency, World},
};
use ip_address_controller::cloud::Provider;
use k8s_openapi::{api::rbac::v1::ClusterRole, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::{Api, Client, Resource, ResourceExt};
use tokio::signal::unix::{SignalKind, signal};

use self::pool::Pool;

/// Plays a cloud and a few nodes of it, to try ip-address-controller with.
#[derive(Debug, Parser)]
struct Settings {
    /// gcp, aws or azure
    #[arg(long, env, default_value = "gcp")]
    provider: String,
    /// How many machines, each with a Node
    #[arg(long, env, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=50))]
    nodes: u8,
    /// How many reserved addresses, from 203.0.113.10 on (RFC 5737: they lead nowhere)
    #[arg(long, env, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=50))]
    addresses: u8,
    /// Where the cloud's API listens
    #[arg(long, env, default_value = "0.0.0.0")]
    bind_address: IpAddr,
    #[arg(long, env, default_value_t = 8090)]
    port: u16,
    /// ClusterRole that the Nodes belong to: they go with it
    #[arg(long, env)]
    owner: Option<String>,
}

/// What a healthy cloud takes, roughly.
const LATENCY: Latency =
    Latency { answer: Duration::from_millis(40), operation: Duration::from_secs(2), spread: Duration::ZERO };
/// The one key that the simulated AWS knows; the others give tokens.
const KEY: &str = "simulated";

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_target(false).init();
    match run(Settings::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(settings: Settings) -> Result<()> {
    let venue = Venue::of(provider(&settings.provider)?);
    let world = cloud(venue, settings.addresses);
    let simulator = Simulator::start_at(world.clone(), SocketAddr::new(settings.bind_address, settings.port)).await?;
    tracing::info!("{} of account {} on {}", venue.name, venue.account, simulator.endpoint());
    let client = Client::try_default().await.context("no Kubernetes cluster")?;
    let owner = match &settings.owner {
        Some(name) => Some(owner(&client, name).await.with_context(|| format!("ClusterRole {name}"))?),
        None => None,
    };
    let names = (1..=settings.nodes).map(|number| format!("simulated-{number}")).collect();
    let pool = Pool { client, world, venue, names, owner };
    pool.clear().await?;
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        () = pool.keep() => {}
        _ = terminated.recv() => {}
    }
    simulator.stop().await;
    Ok(())
}

fn provider(name: &str) -> Result<Provider> {
    Provider::parse(name).with_context(|| format!("provider {name} is not known: expected gcp, aws or azure"))
}

fn cloud(venue: &Venue, addresses: u8) -> World {
    let world = World::new();
    for zone in venue.zones {
        world.add_zone(venue.account, venue.region, zone);
    }
    for number in 0..addresses {
        let ip = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 10 + number));
        world.add_address(Address::new(venue.account, venue.region, &format!("simulated-{}", number + 1), ip));
    }
    world.accept_token(KEY);
    world.set_latency(LATENCY);
    world
}

async fn owner(client: &Client, name: &str) -> Result<OwnerReference> {
    let role = Api::<ClusterRole>::all(client.clone()).get(name).await?;
    let uid = role.uid().unwrap_or_default();
    ensure!(!uid.is_empty(), "it has no uid");
    Ok(OwnerReference {
        api_version: ClusterRole::api_version(&()).into_owned(),
        kind: ClusterRole::kind(&()).into_owned(),
        name: role.name_any(),
        uid,
        ..OwnerReference::default()
    })
}
