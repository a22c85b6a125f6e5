//! A child process that cannot outlive us.
//!
//! Every child dies with this process, even when that is killed with SIGKILL: `setpriv` asks the kernel for it before
//! the program starts, and the shell between the two looks whether the parent is still there, since one that died
//! before the asking would send no signal any more.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};

use anyhow::Context;
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};

use super::background;

/// `$0` is our own process id, the rest is the program to become.
const STILL_THERE: &str = r#"[ "$PPID" = "$0" ] || exit 1; exec "$@""#;

/// What to run: the environment is exactly the one given, nothing is inherited.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The program's path.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its whole environment.
    pub env: BTreeMap<String, String>,
    /// Where it runs.
    pub dir: PathBuf,
}

impl Launch {
    /// The command that runs this and dies with us. Must be spawned on the background thread.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "sh", "-c", STILL_THERE])
            .arg(std::process::id().to_string())
            .arg(&self.program)
            .args(&self.args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()))
            .envs(&self.env)
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            // A Ctrl-C at the terminal is ours to handle: children are stopped in order, not all at once.
            .process_group(0)
            .kill_on_drop(true);
        command
    }
}

/// A running child. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    orders: mpsc::UnboundedSender<Signal>,
    exit: watch::Receiver<Option<ExitStatus>>,
}

impl Process {
    /// Starts the program, its output appended to `log`.
    ///
    /// # Errors
    /// When the log cannot be opened or the process cannot be made.
    pub async fn start(launch: Launch, log: PathBuf) -> anyhow::Result<Self> {
        background::run(async move {
            let out = OpenOptions::new()
                .create(true)
                .append(true)
                .open(&log)
                .with_context(|| format!("opening {}", log.display()))?;
            let err = out.try_clone()?;
            let child = launch
                .command()
                .stdout(out)
                .stderr(err)
                .spawn()
                .with_context(|| format!("starting {} through setpriv (util-linux)", launch.program.display()))?;
            let pid = child.id().context("a child without a process id")?;
            let (orders, received) = mpsc::unbounded_channel();
            let (ended, exit) = watch::channel(None);
            tokio::spawn(attend(child, received, ended));
            Ok(Self { pid, orders, exit })
        })
        .await
    }

    /// Its process id (also that of its process group).
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal; one to a process that has ended reaches nobody.
    pub fn signal(&self, signal: Signal) {
        let _ = self.orders.send(signal);
    }

    /// How it ended, if it has.
    #[must_use]
    pub fn ended(&self) -> Option<ExitStatus> {
        *self.exit.borrow()
    }

    /// Waits until it has ended.
    pub async fn wait(&self) -> Option<ExitStatus> {
        let mut exit = self.exit.clone();
        exit.wait_for(Option::is_some).await.ok().and_then(|status| *status)
    }

    /// Kills it and waits until it is gone.
    pub async fn kill(&self) {
        self.signal(Signal::SIGKILL);
        self.wait().await;
    }
}

/// Only this task reaps the child, so a signal is never sent to a process id that has passed to somebody else.
/// When the [`Process`] is dropped the orders end, and so does the child.
async fn attend(
    mut child: Child,
    mut orders: mpsc::UnboundedReceiver<Signal>,
    ended: watch::Sender<Option<ExitStatus>>,
) {
    loop {
        tokio::select! {
            status = child.wait() => {
                ended.send_replace(Some(status.unwrap_or_default()));
                return;
            }
            order = orders.recv() => {
                let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
                if let Some(pid) = pid {
                    let _ = match order {
                        // The end takes the children's children along; a polite request is for the program itself.
                        None | Some(Signal::SIGKILL) => signal::killpg(Pid::from_raw(pid), Signal::SIGKILL),
                        Some(other) => signal::kill(Pid::from_raw(pid), other),
                    };
                }
                if order.is_none() {
                    let _ = child.wait().await;
                    return;
                }
            }
        }
    }
}
