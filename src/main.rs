//! Wiring only: settings → telemetry → clients → Lease → controller → shutdown.

use std::{ffi::OsString, process::ExitCode, time::Duration};

use ip_address_controller::{
    api, check, kubectl_nia, release, run,
    settings::{Command, SettingsError},
    telemetry,
};

/// How it is set up is in `.cargo/config.toml`.
#[global_allocator]
static HEAP: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// For the spans that are not sent yet at the end; beside the wait for effects it fits into the pod's grace period.
const LAST_SPANS: Duration = Duration::from_secs(3);

// It never fills one core; by itself there would be a worker, with its stack and its share of the heap, for each core.
#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    if let Some(called) = kubectl_nia::called(args.first()) {
        return if secure() { kubectl_nia::main(called, args).await } else { ExitCode::FAILURE };
    }
    let command = match Command::parse_from(args, |name| std::env::var_os(name)) {
        Ok(command) => command,
        Err(asked @ SettingsError::Asked(_)) => {
            print!("{asked}");
            return ExitCode::from(asked.exit_code());
        }
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(error.exit_code());
        }
    };
    if !secure() {
        return ExitCode::FAILURE;
    }
    let result = match command {
        Command::Crd => match api::crd_yaml() {
            Ok(yaml) => {
                print!("{yaml}");
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        },
        Command::Run(settings) => match telemetry::init(&settings, |name| std::env::var_os(name)) {
            Ok(telemetry) => {
                let result = run::run(settings, telemetry.tracer()).await.map_err(|error| error.to_string());
                // Whoever lost the Lease has to be gone soon.
                telemetry.end(if result.is_ok() { LAST_SPANS } else { LAST_SPANS / 6 }).await;
                result
            }
            Err(error) => Err(error.to_string()),
        },
        Command::Check(settings) => check::check(&settings).await,
        Command::Release(settings, which) => release::release(&settings, &which).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Before any client: with two providers compiled in, or none installed, rustls panics at the first handshake.
fn secure() -> bool {
    let installed = rustls::crypto::ring::default_provider().install_default().is_ok();
    if !installed {
        eprintln!("a TLS provider was installed twice");
    }
    installed
}
