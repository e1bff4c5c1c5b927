//! Nodes of one cluster: real chinwags, each with a database of its own, on one engine.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::types::Value;
use tempfile::TempDir;

use crate::Engine;
use crate::common::{TestServer, chinwag, within};

/// Several nodes and the servers of their log.
pub(crate) struct Cluster {
    // Before the engine: nodes that lose their log have nothing to say any more.
    pub(crate) nodes: Vec<TestServer>,
    pub(crate) engine: Engine,
    base: TempDir,
}

impl Cluster {
    /// `count` nodes on `engine`, each of which prefers another server.
    pub(crate) async fn start(engine: Engine, count: usize) -> Cluster {
        Self::with(engine, count, &[]).await
    }

    /// The same with `flags`.
    pub(crate) async fn with(engine: Engine, count: usize, flags: &[&str]) -> Cluster {
        let base = tempfile::tempdir().expect("a temporary directory");
        engine.init(&base.path().join("chinwag.db"), &[]).await;
        let mut cluster = Cluster { nodes: Vec::new(), engine, base };
        for _ in 0..count {
            let directory = cluster.copy_of_the_base();
            cluster.join(directory, flags);
        }
        cluster
    }

    /// A node on each of some disks.
    pub(crate) async fn start_on(engine: Engine, disks: &[PathBuf]) -> Cluster {
        let mut cluster = Self::start(engine, 0).await;
        for disk in disks {
            let directory = tempfile::tempdir_in(disk).expect("a directory");
            let from = cluster.base.path().join("chinwag.db");
            std::fs::copy(from, directory.path().join("chinwag.db")).expect("a copy");
            // An operator who copies a database to a machine waits until it is there. (Other disks are other tests'.)
            std::process::Command::new("sync").arg("-f").arg(disk).status().expect("sync runs");
            cluster.join(directory, &[]);
        }
        cluster
    }

    /// A directory with the database as the log began.
    pub(crate) fn copy_of_the_base(&self) -> TempDir {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (from, to) = (self.base.path().join("chinwag.db"), directory.path().join("chinwag.db"));
        std::fs::copy(from, to).expect("a copy");
        directory
    }

    /// A directory with a backup of a node's database.
    pub(crate) fn backup_of(&self, node: usize) -> TempDir {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("chinwag.db");
        chinwag(&self.nodes[node].database_path(), &["backup", file.to_str().expect("UTF-8")]).ok();
        directory
    }

    /// Starts one node more, on the database in `directory`.
    pub(crate) fn join(&mut self, directory: TempDir, flags: &[&str]) {
        self.join_with(directory, flags, &[]);
    }

    /// The same with `variables`.
    pub(crate) fn join_with(&mut self, directory: TempDir, flags: &[&str], variables: &[(&str, &str)]) {
        self.join_by(directory, &self.engine.flags_from(self.nodes.len()), flags, variables);
    }

    /// The same, with flags of the test's own that say how it reaches the log.
    pub(crate) fn join_by(&mut self, directory: TempDir, log: &[String], flags: &[&str], variables: &[(&str, &str)]) {
        let all: Vec<_> = log.iter().map(String::as_str).chain(flags.iter().copied()).collect();
        self.nodes.push(TestServer::in_directory_with(directory, &all, variables));
    }

    /// Waits until all nodes have applied the same entries, and asserts that their databases are equal then.
    pub(crate) async fn are_equal(&self) {
        let (first, others) = within("the same position on every node", async {
            loop {
                let mut all: Vec<_> = self.nodes.iter().map(|node| rows(&node.database_path())).collect();
                // Each is of one moment, though not of the same.
                if all.windows(2).all(|two| applied(&two[0]) == applied(&two[1])) {
                    return (all.remove(0), all);
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
        for other in others {
            for (one, two) in first.iter().zip(&other) {
                assert_eq!(one, two);
            }
            assert_eq!(first.len(), other.len(), "as many rows");
        }
    }
}

/// One row of a database, and its table.
type Rows = Vec<(String, Vec<Value>)>;

fn applied(rows: &Rows) -> Option<&Value> {
    rows.iter().find(|(_, row)| row[0] == Value::Text("applied".into())).map(|(_, row)| &row[1])
}

/// How far the database at `path` has applied its log, and the chain there.
pub(crate) fn position(path: &Path) -> (i64, i64) {
    let database = rusqlite::Connection::open(path).expect("the database opens");
    let value = "SELECT (SELECT value FROM meta WHERE key = 'applied'), (SELECT value FROM meta WHERE key = 'chain')";
    database.query_row(value, [], |row| Ok((row.get(0)?, row.get(1)?))).expect("a position")
}

/// Every row of the database at `path` at one moment, except for what each node tries its own disk with, and for how far
/// people have read, which is told beside the log.
pub(crate) fn rows(path: &Path) -> Rows {
    let database = rusqlite::Connection::open(path).expect("the database opens");
    database.execute_batch("BEGIN").expect("one moment");
    let names = "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name";
    let mut names = database.prepare(names).expect("a query");
    let names: Vec<String> =
        names.query_map([], |row| row.get(0)).expect("names").map(|name| name.expect("a name")).collect();
    let mut all = Rows::new();
    for name in names {
        let mut statement = database.prepare(&format!("SELECT * FROM {name} ORDER BY 1, 2")).expect("a query");
        let columns = statement.column_count();
        let read = |row: &rusqlite::Row<'_>| (0..columns).map(|column| row.get(column)).collect();
        all.extend(statement.query_map([], read).expect("rows").map(|row| (name.clone(), row.expect("a row"))));
    }
    all.retain(|(table, row)| row[0] != Value::Text("proof".into()) && table != "reads");
    all
}
