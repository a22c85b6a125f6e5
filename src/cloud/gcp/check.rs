//! The self-test: which credentials, which permissions. Changes nothing.

use google_cloud_compute_v1::model::TestPermissionsRequest;

use super::{Gcp, errors, translate};
use crate::cloud::{CloudError, ErrorKind, Finding, Holder, Place, Scope, Survey};

const CREDENTIALS: &str = "credentials";
const LIST: &str = "compute.addresses.list";
const TEST: &str = "instances.testIamPermissions";

/// What the operator does to a machine; the cloud tells for one machine whether we may.
const ON_MACHINES: [&str; 3] =
    ["compute.instances.get", "compute.instances.addAccessConfig", "compute.instances.deleteAccessConfig"];

/// What only the project itself could be asked, through another API than Compute.
const NOT_TESTED: &str = "compute.addresses.use, compute.subnetworks.useExternalIp, compute.zoneOperations.get";

impl Gcp {
    pub(super) async fn self_test(&self, scope: &Scope) -> Vec<Finding> {
        let credentials = self.test_credentials().await;
        if !credentials.ok {
            // Everything else would only say the same again.
            return vec![credentials];
        }
        let survey = self.read_survey(scope).await;
        let mut findings = vec![credentials, listed(scope, &survey)];
        findings.extend(match machine_of(&survey) {
            Some(machine) => self.test_machine(&machine).await,
            None => vec![untested(scope, &ON_MACHINES.join(", "))],
        });
        findings.push(untested(scope, NOT_TESTED));
        findings
    }

    async fn test_credentials(&self) -> Finding {
        let tried = match tokio::time::timeout(self.timeout, self.credentials.access_token()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(CloudError::new(ErrorKind::Unauthenticated, CREDENTIALS, error.to_string())),
            Err(_) => Err(errors::late(CREDENTIALS)),
        };
        match tried {
            Ok(()) => passed(CREDENTIALS, "an access token was issued".to_owned()),
            Err(error) => failed(CREDENTIALS, &error, ErrorKind::Unauthenticated.remedy()),
        }
    }

    async fn test_machine(&self, place: &Place) -> Vec<Finding> {
        let test = self
            .instances
            .test_iam_permissions()
            .set_project(&place.account)
            .set_zone(&place.zone)
            .set_resource(&place.machine)
            .set_body(TestPermissionsRequest::new().set_permissions(ON_MACHINES));
        let granted = match self.read(TEST, test.send()).await {
            Ok(answer) => answer.permissions,
            Err(error) => return vec![failed(TEST, &error, error.kind.remedy())],
        };
        ON_MACHINES
            .iter()
            .map(|permission| {
                let ok = granted.iter().any(|granted| granted == permission);
                let message = if ok {
                    format!("granted on machine {}", place.machine)
                } else {
                    format!("not granted on machine {}; {}", place.machine, grant(permission, &place.account))
                };
                Finding { ok, subject: (*permission).to_owned(), message }
            })
            .collect()
    }
}

fn listed(scope: &Scope, survey: &Result<Survey, CloudError>) -> Finding {
    match survey {
        Ok(survey) => passed(LIST, format!("{} external addresses in {}", survey.addresses.len(), scope.region)),
        Err(error) if error.kind == ErrorKind::Denied => failed(LIST, error, &grant(LIST, &scope.account)),
        Err(error) => failed(LIST, error, error.kind.remedy()),
    }
}

/// Permissions on machines can only be asked of a machine; one that holds an address is one that we know.
fn machine_of(survey: &Result<Survey, CloudError>) -> Option<Place> {
    let survey = survey.as_ref().ok()?;
    survey.addresses.values().find_map(|reservation| match &reservation.holder {
        Holder::Machine(machine) => translate::place(TEST, machine).ok(),
        Holder::Free | Holder::Foreign(_) => None,
    })
}

/// Said openly rather than passed over: the absence of a failure is no proof here.
fn untested(scope: &Scope, permissions: &str) -> Finding {
    passed(
        permissions,
        format!("not tested; the custom role in project {} must hold all of them (docs/gcp.md)", scope.account),
    )
}

fn grant(permission: &str, project: &str) -> String {
    format!(
        "add it to the operator's custom role: gcloud iam roles update ROLE --project={project} --add-permissions={permission}"
    )
}

fn passed(subject: &str, message: String) -> Finding {
    Finding { ok: true, subject: subject.to_owned(), message }
}

fn failed(subject: &str, error: &CloudError, remedy: &str) -> Finding {
    Finding {
        ok: false,
        subject: subject.to_owned(),
        message: format!("{}: {}; {remedy}", error.kind.label(), error.message),
    }
}
