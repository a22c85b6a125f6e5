//! The smallest program worth running in a pod: answers on `/healthz`, says which variables it was given, and ends
//! when it is asked to. With an argument it exits at once, with that code.

use std::net::{IpAddr, SocketAddr};

use tokio::signal::unix::{SignalKind, signal};
use warp::Filter;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    if let Some(code) = std::env::args().nth(1) {
        println!("exits with {code}");
        std::process::exit(code.parse()?);
    }
    for (name, value) in std::env::vars().filter(|(name, _)| name.starts_with("TINY_") || name == "KUBECONFIG") {
        println!("{name}={value}");
    }
    let address: IpAddr = std::env::var("BIND_ADDRESS")?.parse()?;
    let mut terminated = signal(SignalKind::terminate())?;
    let server = warp::serve(warp::path("healthz").map(|| "well")).bind(SocketAddr::new(address, 8080)).await;
    tokio::select! {
        () = server.run() => {}
        _ = terminated.recv() => println!("ends as asked"),
    }
    Ok(())
}
