//! Who may speak to the API server, and how they prove it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::json;
use uuid::Uuid;

/// What stands before the 65 bytes of a P-256 point in a `SubjectPublicKeyInfo`: the algorithm, and the lengths.
const P256_PUBLIC_KEY: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// The key pair that signs and checks the tokens of service accounts.
#[derive(Clone, Debug)]
pub struct SigningKey {
    /// PKCS #8, for the API server and the controller manager.
    pub private: PathBuf,
    /// For the API server, which checks with it.
    pub public: PathBuf,
}

impl SigningKey {
    /// Makes a fresh pair in `dir`.
    ///
    /// # Errors
    /// When there is no randomness or the files cannot be written.
    pub fn generate(dir: &Path) -> anyhow::Result<Self> {
        let random = SystemRandom::new();
        let unusable = |_| anyhow!("no key could be generated");
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).map_err(unusable)?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref(), &random)
            .map_err(|error| anyhow!("the generated key was rejected: {error}"))?;
        let public = [&P256_PUBLIC_KEY[..], pair.public_key().as_ref()].concat();

        let key = Self { private: dir.join("sa.key"), public: dir.join("sa.pub") };
        fs::write(&key.private, pem::encode(&pem::Pem::new("PRIVATE KEY", pkcs8.as_ref())))?;
        fs::write(&key.public, pem::encode(&pem::Pem::new("PUBLIC KEY", public)))?;
        Ok(key)
    }
}

/// The static tokens of the people and components that exist before any service account does.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// In `system:masters`.
    pub admin: String,
    /// `system:kube-controller-manager`.
    pub controller_manager: String,
    /// `system:kube-scheduler`.
    pub scheduler: String,
    /// kwok and the node agent pretend to be kubelets of many nodes; they have a name of their own in the audit log.
    pub kubelets: String,
}

impl Tokens {
    /// The user names, as they stand in the audit log.
    pub const KUBELETS: &str = "e2e:kubelets";

    /// Fresh tokens, written to the file that the API server reads.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn generate(file: &Path) -> anyhow::Result<Self> {
        let token = || Uuid::new_v4().simple().to_string();
        let tokens = Self { admin: token(), controller_manager: token(), scheduler: token(), kubelets: token() };
        let lines = [
            (&tokens.admin, "e2e:admin", "system:masters"),
            (&tokens.controller_manager, "system:kube-controller-manager", ""),
            (&tokens.scheduler, "system:kube-scheduler", ""),
            (&tokens.kubelets, Self::KUBELETS, "system:masters"),
        ]
        .map(|(token, user, groups)| format!("{token},{user},{user},\"{groups}\"\n"));
        fs::write(file, lines.concat())?;
        Ok(tokens)
    }
}

/// How to reach the API server, before it is said as whom.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// `https://127.0.0.1:PORT`.
    pub server: String,
    /// The certificate file that the API server made for itself.
    pub authority: PathBuf,
}

impl Endpoint {
    /// Writes a kubeconfig for the bearer of `token`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_kubeconfig(&self, file: &Path, token: &str, namespace: &str) -> anyhow::Result<()> {
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "e2e", "cluster": { "server": self.server, "certificate-authority": self.authority } }],
            "users": [{ "name": "e2e", "user": { "token": token } }],
            "contexts": [{ "name": "e2e", "context": { "cluster": "e2e", "user": "e2e", "namespace": namespace } }],
            "current-context": "e2e",
        });
        fs::write(file, serde_yaml::to_string(&config)?).with_context(|| format!("writing {}", file.display()))
    }
}
