//! Over TLS, with an nkey for the nodes and one for the operator, and no more permissions than docs/CLUSTER.md gives them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use crate::Engine;
use crate::common::{Client, TestServer, chinwag};

/// Keys that open nothing.
const NODE: (&str, &str) = (
    "SUAJKRG2FOKFRBFCDZDEYHWOKAPT7UUKWJSFZS7DMVI33MQVB6OEQ6PA2Q",
    "UDXPMKXMV4SBH7F4DBSC64BGOZHEWJUCQPBDRIOCTZRP2HHWFKEOQVO6",
);
const OPERATOR: (&str, &str) = (
    "SUAEEPCD576IMHK6INLIBYBQFJOP74XZFSIONOPJPEI47V46NR4ZVC76YI",
    "UADM2J3KSG6GCNRXUW7Q5ULSFRJSGHJOE6T5R4GJWVNK73HCIV3ZJVM6",
);

/// The example's configuration, with the keys of these tests.
fn accounts() -> String {
    let example = include_str!("../../packaging/examples/cluster/nats.conf");
    let (_, accounts) = example.split_once("\naccounts {").expect("the example has accounts");
    let node = format!("UXX{}", "X".repeat(53));
    let operator = format!("UYY{}", "Y".repeat(53));
    assert!(accounts.contains(&node) && accounts.contains(&operator), "{accounts}");
    format!("accounts {{{}", accounts.replace(&node, NODE.1).replace(&operator, OPERATOR.1))
}

fn openssl(directory: &Path, arguments: &str) {
    let output = Command::new("openssl").args(arguments.split(' ')).current_dir(directory).output();
    let output = output.expect("openssl runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn write_seed(path: &Path, seed: &str) {
    std::fs::write(path, format!("{seed}\n")).expect("a file");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("permissions");
}

#[tokio::test]
async fn a_cluster_works_over_tls_with_the_permissions_of_the_example() {
    let directory = tempfile::tempdir().expect("a directory");
    let home = directory.path();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2";
    openssl(home, &format!("req -x509 {key} -keyout ca.key -out ca.pem -subj /CN=ca"));
    openssl(
        home,
        &format!(
            "req -x509 {key} -keyout key.pem -out cert.pem -subj /CN=nats -CA ca.pem -CAkey ca.key \
             -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE"
        ),
    );
    let (node, operator) = (home.join("node.seed"), home.join("operator.seed"));
    write_seed(&node, NODE.0);
    write_seed(&operator, OPERATOR.0);
    let home = home.to_str().expect("UTF-8");
    let more = format!("tls {{ cert_file: \"{home}/cert.pem\", key_file: \"{home}/key.pem\" }}\n{}", accounts());
    let Some(engine) = Engine::configured(&more).await else { return };
    let address = engine.flags_from(0)[1].replace("nats://", "tls://");
    let ca = format!("{home}/ca.pem");
    let flags = |seed: &Path| {
        ["--log", &address, "--log-ca", &ca, "--log-nkey", seed.to_str().expect("UTF-8")].map(ToOwned::to_owned)
    };
    let database = tempfile::tempdir().expect("a directory");
    let path = database.path().join("chinwag.db");
    let with = |words: &[&str], seed: &Path| {
        let flags = flags(seed);
        let arguments: Vec<_> = words.iter().copied().chain(flags.iter().map(String::as_str)).collect();
        chinwag(&path, &arguments)
    };
    // A node's key makes no log, a key that others can read is not used, and without one nobody is let in.
    assert_eq!(with(&["cluster", "init", "--replicas", "1"], &node).code, 1);
    std::fs::set_permissions(&operator, std::fs::Permissions::from_mode(0o644)).expect("permissions");
    assert!(with(&["cluster", "init", "--replicas", "1"], &operator).failed().contains("chmod 600"));
    std::fs::set_permissions(&operator, std::fs::Permissions::from_mode(0o600)).expect("permissions");
    let bare = ["cluster", "status", "--log", &address, "--log-ca", &ca];
    assert!(chinwag(&path, &bare).failed().contains("requires an nkey"));
    with(&["cluster", "init", "--replicas", "1"], &operator).ok();
    assert!(with(&["cluster", "status"], &operator).ok().contains("replicas   1"));
    let flags = flags(&node);
    let server = TestServer::in_directory(database, &flags.each_ref().map(String::as_str));
    let ada = Client::register(&server, "ada").await;
    ada.connect().await.store("n", "hello").await;
    server.healthy(200).await;
    assert!(!server.log().contains("NATS refuses"), "{}", server.log());
    assert!(!server.log().contains(NODE.0), "no secret is logged");
}
