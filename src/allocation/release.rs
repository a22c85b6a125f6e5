//! Letting an object go: whether addresses stay, and the finalizer, last.

use std::{sync::Arc, time::Duration};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use tokio::time::timeout;

use super::{
    Controller,
    pass::PassError,
    record::{events::Event, tell::Word},
    tables::Uid,
};
use crate::{
    api::{self, DeletionPolicy, NetIPAllocation},
    cloud::Gate,
    lifecycle::finalizer::{self, Release},
};

/// For single calls to the API server.
const CALL: Duration = Duration::from_secs(10);

impl Controller {
    /// Addresses and labels stay as they are: asked for, or the CRD itself is being deleted (P9). When that cannot be
    /// told, nothing is let go on a guess: the pass fails and is tried again.
    pub(super) async fn retains(&self, object: &NetIPAllocation) -> Result<bool, PassError> {
        if object.spec.deletion_policy == DeletionPolicy::Retain {
            return Ok(true);
        }
        let api: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        let name = format!("netipallocations.{}", api::GROUP);
        match timeout(CALL, api.get_opt(&name)).await {
            Ok(Ok(Some(crd))) => Ok(crd.metadata.deletion_timestamp.is_some()),
            Ok(Ok(None)) => Ok(true),
            Ok(Err(error)) => Err(PassError::Crd(error.to_string())),
            Err(_) => Err(PassError::Crd("no answer in time".to_owned())),
        }
    }

    /// Takes the finalizer off; everything that was held is let go, or stays on purpose.
    pub(super) async fn release(&self, object: &Arc<NetIPAllocation>) -> Result<bool, PassError> {
        let limit = self.config.mutation_timeout;
        self.actor.gate().open_for(limit).map_err(|_| PassError::NotLeading)?;
        match timeout(limit, finalizer::clear(&self.api, &**object, api::FINALIZER, Release::Done)).await {
            Ok(Ok(gone)) => {
                if gone {
                    let note = "everything is let go, the object may go".to_owned();
                    self.teller.say(object, Word::new(Event::Released, "", note));
                }
                Ok(gone)
            }
            Ok(Err(error)) => {
                self.ledger.forget(&object.metadata.name.clone().unwrap_or_default());
                Err(PassError::Finalizer(Box::new(error)))
            }
            Err(_) => Err(PassError::NotWritten("no answer in time".to_owned())),
        }
    }

    /// Everything that is known of an object that is gone. kube's applier runs no pass for such, so this is called where
    /// the end is seen: when our finalizer goes, and by the sweep for objects that went without us.
    pub(super) fn forget(&self, name: &str) {
        self.gauges.forget(name);
        self.return_permits(name);
        self.cadences().remove(name);
        self.resting().remove(name);
        for uid in self.ledger.forget(name) {
            self.forget_uid(&uid);
        }
    }

    /// The same for one life of an object: one of its name may have taken its place.
    pub(super) fn forget_uid(&self, uid: &Uid) {
        self.ledger.forget_uid(uid);
        self.tables().forget_owner(uid);
        self.pods.forget(uid);
    }
}
