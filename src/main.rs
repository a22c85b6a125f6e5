//! Wiring only: settings → telemetry → clients → Lease → controller → shutdown.

use std::process::ExitCode;

use ip_address_controller::{
    api, check, release, run,
    settings::{Command, SettingsError},
    telemetry,
};

#[tokio::main]
async fn main() -> ExitCode {
    let command = match Command::parse_from(std::env::args_os(), |name| std::env::var_os(name)) {
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
    // Before any client: with two providers compiled in, or none installed, rustls panics at the first handshake.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        eprintln!("a TLS provider was installed twice");
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
        Command::Run(settings) => match telemetry::init(&settings) {
            Ok(()) => run::run(settings).await.map_err(|error| error.to_string()),
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
