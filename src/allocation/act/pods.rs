//! Asking pods to go: through the Eviction API alone, with the pod's uid (F8, P7).

use futures::{StreamExt, stream};
use k8s_openapi::{
    api::policy::v1::Eviction,
    apimachinery::pkg::apis::meta::v1::{DeleteOptions, Preconditions},
};
use kube::{
    Api,
    api::{ObjectMeta, PostParams},
    core::Status,
};
use tokio::time::timeout;

use super::Actor;
use crate::{allocation::decide::facts::User, cloud::Gate};

/// Requests under way at once, per deed.
const AT_ONCE: usize = 8;

/// What the API server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// It goes, or is gone.
    Accepted,
    /// A PodDisruptionBudget says wait; the text names it.
    Blocked(String),
    /// Refused or unanswered otherwise; the text says why.
    Failed(String),
}

impl Actor {
    /// Asks all of them, a few at a time.
    pub async fn ask_all(&self, users: &[User]) -> Vec<(User, Asked)> {
        stream::iter(users.iter().cloned())
            .map(|user| async move {
                let asked = self.ask(&user).await;
                (user, asked)
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await
    }

    async fn ask(&self, user: &User) -> Asked {
        // Not `Api::evict`: kube 5.0 spells deleteOptions in a way that the API server drops, and the uid with it.
        let eviction = Eviction {
            metadata: ObjectMeta {
                name: Some(user.name.clone()),
                namespace: Some(user.namespace.clone()),
                ..ObjectMeta::default()
            },
            delete_options: Some(DeleteOptions {
                preconditions: Some(Preconditions { uid: Some(user.uid.clone()), resource_version: None }),
                ..DeleteOptions::default()
            }),
        };
        if let Err(closed) = self.gate().open_for(self.timeout) {
            return Asked::Failed(closed.to_string());
        }
        let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(self.client.clone(), &user.namespace);
        let params = PostParams::default();
        let call = pods.create_subresource::<_, Status>("eviction", &user.name, &params, &eviction);
        match timeout(self.timeout, call).await {
            Ok(Ok(_)) => Asked::Accepted,
            Ok(Err(kube::Error::Api(status))) => refusal(&status),
            Ok(Err(error)) => Asked::Failed(error.to_string()),
            Err(_) => Asked::Failed("no answer in time".to_owned()),
        }
    }
}

/// 404 and 409 (another uid): that pod is gone. 429 with the cause DisruptionBudget: a budget says wait.
fn refusal(status: &Status) -> Asked {
    match status.code {
        404 | 409 => Asked::Accepted,
        429 => {
            let budget = status
                .details
                .iter()
                .flat_map(|details| &details.causes)
                .find(|cause| cause.reason == "DisruptionBudget")
                .map(|cause| cause.message.clone());
            Asked::Blocked(budget.unwrap_or_else(|| status.message.clone()))
        }
        _ => Asked::Failed(status.message.clone()),
    }
}

#[cfg(test)]
mod tests;
