//! The self-test: which credentials, which permissions. Changes nothing: EC2 checks a dry run and does not carry it out.

use std::{error::Error, future::Future};

use aws_credential_types::{
    Credentials, credential_feature::AwsCredentialFeature as Feature, provider::ProvideCredentials as _,
};
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};

use super::{
    Aws, errors,
    instance::Live,
    read::{ADDRESSES, INSTANCES, REGIONS},
    restore::MODIFY,
    swap::{ASSOCIATE, DISASSOCIATE},
    translate::Shown,
};
use crate::cloud::{CloudError, ErrorKind, Finding, Holder, Scope};

const CREDENTIALS: &str = "credentials";

/// What EC2 says to a dry run that it would have carried out.
const WOULD_HAVE: &str = "DryRunOperation";

impl Aws {
    /// Permissions can be asked of a thing only, so what there is nothing of cannot be tested, and is said so.
    pub(super) async fn self_test(&self, scope: &Scope) -> Vec<Finding> {
        let credentials = self.test_credentials().await;
        if !credentials.ok {
            // Everything else would only say the same again.
            return vec![credentials];
        }
        let region = &scope.region;
        let client = self.client(region);
        let addresses = self.addresses(region, None).await;
        let mut findings = vec![credentials, listed(ADDRESSES, &addresses, region)];
        let may_read = self.dry(INSTANCES, client.describe_instances().dry_run(true).send()).await;
        findings.push(granted(INSTANCES, may_read, region));
        findings.push(optional(
            listed(REGIONS, &self.regions(region).await, region),
            "without it nobody is told in which other region an address is",
        ));
        let addresses = addresses.unwrap_or_default();
        let held = addresses.iter().find_map(|shown| match &shown.reservation.holder {
            Holder::Machine(machine) => Some((shown, machine)),
            Holder::Free | Holder::Foreign(_) => None,
        });
        match held {
            Some((shown, machine)) => match self.live(machine).await {
                Ok(live) => findings.extend(self.test_changes(region, shown, &live).await),
                Err(error) => findings.extend(
                    [ASSOCIATE, DISASSOCIATE, MODIFY]
                        .map(|action| untested(action, &format!("{} cannot be read: {}", machine, error.message))),
                ),
            },
            None => {
                let why = format!("no address in {region} is on an instance");
                findings.extend([ASSOCIATE, DISASSOCIATE, MODIFY].map(|action| untested(action, &why)));
            }
        }
        findings
    }

    async fn test_credentials(&self) -> Finding {
        let Some(provider) = self.config().credentials_provider() else {
            return Finding { ok: false, subject: CREDENTIALS.to_owned(), message: "none are configured".to_owned() };
        };
        let tried = match tokio::time::timeout(self.timeout, provider.provide_credentials()).await {
            Ok(Ok(credentials)) => Ok(source(&credentials)),
            Ok(Err(error)) => Err(errors::of_credentials(CREDENTIALS, &error)),
            Err(_) => Err(errors::late(CREDENTIALS)),
        };
        match tried {
            Ok(source) => Finding::passed(CREDENTIALS, format!("found {source}")),
            Err(error) => Finding::failed(CREDENTIALS, &error, ErrorKind::Unauthenticated.remedy()),
        }
    }

    /// Of an address that is on a machine: so each change is asked of real things, and none is carried out.
    async fn test_changes(&self, region: &str, shown: &Shown, live: &Live) -> Vec<Finding> {
        let client = self.client(region);
        let associate = client
            .associate_address()
            .allocation_id(&shown.allocation)
            .network_interface_id(&live.primary.id)
            .private_ip_address(&live.primary.private_ip)
            .allow_reassociation(false)
            .dry_run(true);
        let association = shown.association.as_ref().map(|association| association.id.clone());
        let disassociate = client.disassociate_address().set_association_id(association).dry_run(true);
        let modify = client
            .modify_network_interface_attribute()
            .network_interface_id(&live.primary.id)
            .associate_public_ip_address(true)
            .dry_run(true);
        let on = format!("{} and {}", shown.ip, live.machine.instance);
        vec![
            granted(ASSOCIATE, self.dry(ASSOCIATE, associate.send()).await, &on),
            granted(DISASSOCIATE, self.dry(DISASSOCIATE, disassociate.send()).await, &on),
            optional(
                granted(MODIFY, self.dry(MODIFY, modify.send()).await, &on),
                "without it a node with several interfaces stays without a public address when a reserved one has left it",
            ),
        ]
    }

    /// Whether the dry run would have been carried out.
    async fn dry<T, E: ProvideErrorMetadata + Error + 'static>(
        &self,
        call: &'static str,
        send: impl Future<Output = Result<T, SdkError<E>>>,
    ) -> Result<(), CloudError> {
        match tokio::time::timeout(self.timeout, send).await {
            Ok(Err(error)) if error.code() == Some(WOULD_HAVE) => Ok(()),
            Ok(Err(error)) => Err(errors::of_read(call, &error)),
            Ok(Ok(_)) => Err(CloudError::new(ErrorKind::Unknown, call, "a dry run was answered like a real one")),
            Err(_) => Err(errors::late(call)),
        }
    }
}

/// Which part of the chain gave them.
fn source(credentials: &Credentials) -> &'static str {
    let features = credentials.get_property::<Vec<Feature>>().map(Vec::as_slice).unwrap_or_default();
    let from = features.iter().rev().find_map(|feature| match feature {
        Feature::CredentialsEnvVars => Some("in the environment"),
        Feature::CredentialsProfile => Some("in a profile"),
        Feature::CredentialsEnvVarsStsWebIdToken
        | Feature::CredentialsProfileStsWebIdToken
        | Feature::CredentialsStsAssumeRoleWebId => Some("by web identity (IRSA)"),
        Feature::CredentialsHttp => Some("at the container's agent (EKS Pod Identity)"),
        Feature::CredentialsImds => Some("in the instance metadata: every pod of the node has the same rights"),
        _ => None,
    });
    from.unwrap_or("by AWS's own chain")
}

fn listed<T>(action: &'static str, answer: &Result<Vec<T>, CloudError>, region: &str) -> Finding {
    match answer {
        Ok(all) => Finding::passed(&permission(action), format!("granted; {} shown from {region}", all.len())),
        Err(error) => refused(action, error),
    }
}

fn granted(action: &'static str, answer: Result<(), CloudError>, on: &str) -> Finding {
    match answer {
        Ok(()) => Finding::passed(&permission(action), format!("granted on {on}")),
        Err(error) => refused(action, &error),
    }
}

/// One that is missing is no failure, but is said with what it costs.
fn optional(finding: Finding, without: &str) -> Finding {
    match finding.ok || !finding.message.starts_with(ErrorKind::Denied.label()) {
        true => finding,
        false => Finding { ok: true, message: format!("optional, {without}; {}", finding.message), ..finding },
    }
}

/// Said openly rather than passed over: the absence of a failure is no proof here.
fn untested(action: &str, why: &str) -> Finding {
    Finding::passed(&permission(action), format!("not tested: {why}; the operator's role must hold it"))
}

fn refused(action: &str, error: &CloudError) -> Finding {
    let permission = permission(action);
    match error.kind {
        ErrorKind::Denied => Finding::failed(&permission, error, &grant(action)),
        other => Finding::failed(&permission, error, other.remedy()),
    }
}

fn permission(action: &str) -> String {
    format!("ec2:{action}")
}

/// Under a name of its own: an inline policy of the same name would be replaced.
fn grant(action: &str) -> String {
    format!(
        r#"grant it to the operator's role: aws iam put-role-policy --role-name ROLE --policy-name ip-address-controller-{action} --policy-document '{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Action":"ec2:{action}","Resource":"*"}}]}}'"#
    )
}
