//! The power of all machines is cut at once: what was not on disk is gone. Where this is run as root.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::Engine;
use serde_json::json;

use crate::common::{Client, int, skip, within};
use crate::load::Load;
use crate::nodes::Cluster;

/// A file system of a machine of its own, on a loop device, whose power can be cut.
struct Disk {
    image: PathBuf,
    mount: PathBuf,
    _directory: tempfile::TempDir,
}

fn run(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}

impl Disk {
    /// Of so many mebibytes; none where this cannot be done.
    fn of(mebibytes: u64) -> Option<Disk> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (image, mount) = (directory.path().join("image"), directory.path().join("mount"));
        std::fs::create_dir(&mount).expect("a directory");
        std::fs::File::create(&image).expect("a file").set_len(mebibytes << 20).expect("a sparse file");
        let disk = Disk { image, mount, _directory: directory };
        let is_made = run("mkfs.ext4", &["-q", "-F", text(&disk.image)]);
        (is_made && disk.mount()).then_some(disk)
    }

    fn mount(&self) -> bool {
        run("mount", &["-o", "loop", text(&self.image), text(&self.mount)])
    }

    /// What was not synced is gone: ext4 ends without flushing its journal (`EXT4_IOC_SHUTDOWN`, `NOLOGFLUSH`).
    fn cut_power(&self) {
        const SCRIPT: &str = "import fcntl,os,struct,sys\n\
            fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))";
        assert!(run("python3", &["-c", SCRIPT, text(&self.mount)]), "the file system can be shut down");
    }

    /// As after the power is back: the journal is replayed.
    fn power_on(&self) {
        assert!(run("umount", &[text(&self.mount)]), "nobody uses it any more");
        assert!(self.mount(), "it mounts again");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        run("umount", &["-l", text(&self.mount)]);
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Three disks; none, and a word about it, where that takes more than this user may do.
fn three_disks() -> Option<Vec<Disk>> {
    let disks: Option<Vec<_>> = (0..3).map(|_| Disk::of(512)).collect();
    if disks.is_none() && rustix::process::geteuid().is_root() {
        // In a container root may not mount.
        skip_here();
    }
    disks
}

/// Allowed even where `CHINWAG_NO_SKIP` is set: no package brings a loop device.
fn skip_here() {
    // Not `eprintln!`, which the test harness keeps to itself when a test passes.
    writeln!(std::io::stderr(), "skipped: no loop device can be mounted here").expect("standard error takes a line");
}

#[tokio::test]
async fn a_full_disk_stops_one_node_only() {
    if !rustix::process::geteuid().is_root() {
        return skip("a disk of its own takes root");
    }
    let Some(disk) = Disk::of(64) else { return skip_here() };
    let Some(engine) = Engine::one().await else { return };
    let elsewhere = tempfile::tempdir().expect("a directory");
    let cluster = Cluster::start_on(engine, &[elsewhere.path().to_owned(), disk.mount.clone()]).await;
    let ada = Client::register(&cluster.nodes[0], "ada").await;
    let mut here = ada.connect().await;
    here.store("first", "there is room").await;
    cluster.nodes[1].healthy(200).await;
    let filler = disk.mount.join("filler");
    let mut file = std::fs::File::create(&filler).expect("a file");
    let zeros = vec![0; 64 << 10];
    while file.write_all(&zeros).is_ok() {}
    let text = "x".repeat(4_000);
    let mut number = 0;
    // SQLite's log has some room left in its file.
    within("the disk to be full", async {
        while !cluster.nodes[1].log().contains("the database fails") {
            number += 1;
            here.store(&format!("n{number}"), &text).await;
        }
    })
    .await;
    assert_eq!(cluster.nodes[1].get("/healthz").send().await.status, 503);
    assert_eq!(cluster.nodes[0].get("/healthz").send().await.status, 200);
    here.store("last", "the others go on").await;
    drop(file);
    std::fs::remove_file(&filler).expect("a file");
    cluster.nodes[1].healthy(200).await;
    cluster.are_equal().await;
    drop(cluster);
}

#[tokio::test(flavor = "multi_thread")]
async fn power_cut_of_all_machines() {
    cut_under_load(3, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn power_cut_of_two_machines() {
    cut_under_load(2, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn power_cut_of_one_machine() {
    cut_under_load(1, 4).await;
}

/// Cuts the power of some of three machines so many times, always of others, while clients write.
async fn cut_under_load(machines: usize, cuts: usize) {
    if !rustix::process::geteuid().is_root() {
        return skip("cutting the power takes root");
    }
    let Some(disks) = three_disks() else { return };
    let stores: Vec<_> = disks.iter().map(|disk| disk.mount.clone()).collect();
    let Some(engine) = Engine::of(3, Some(&stores), "always").await else { return };
    let mut cluster = Cluster::start_on(engine, &stores).await;
    let load = Load::start(&cluster, 4).await;
    for first in 0..cuts {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let cut: Vec<_> = (0..machines).map(|number| (first + number) % 3).collect();
        // They stop at one moment. What ran on would write to a dead disk, which is another fault.
        for &machine in &cut {
            cluster.engine.signal(machine, Signal::STOP);
            cluster.nodes[machine].signal(Signal::STOP);
        }
        for &machine in &cut {
            disks[machine].cut_power();
        }
        for &machine in &cut {
            cluster.engine.end(machine, Signal::KILL);
            cluster.nodes[machine].kill().await;
            disks[machine].power_on();
            cluster.engine.restart(machine);
        }
        cluster.engine.ready().await;
        for &machine in &cut {
            tokio::task::block_in_place(|| cluster.nodes[machine].restart());
        }
    }
    let account = load.settle(&cluster).await;
    assert!(account.acked > 0);
    // The nodes before what they stand on.
    drop(cluster);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_with_lazy_sync_is_noticed() {
    if !rustix::process::geteuid().is_root() {
        return skip("cutting the power takes root");
    }
    let Some(disks) = three_disks() else { return };
    let stores: Vec<_> = disks.iter().map(|disk| disk.mount.clone()).collect();
    for disk in &disks {
        // So that the file system syncs nothing by itself while a busy machine gets this far.
        assert!(run("mount", &["-o", "remount,commit=600", text(&disk.mount)]), "it takes the option");
    }
    let Some(engine) = Engine::of(3, Some(&stores), "\"2m\"").await else { return };
    // The nodes' own disks have power: they know what was acknowledged.
    let mut cluster = Cluster::start(engine, 2).await;
    let ada = Client::register(&cluster.nodes[0], "ada").await;
    let (mut socket, mut last) = (ada.connect().await, 0);
    for number in 0..200 {
        last = socket.store(&format!("n{number}"), "acknowledged").await;
    }
    for server in 0..3 {
        cluster.engine.signal(server, Signal::STOP);
    }
    for disk in &disks {
        disk.cut_power();
    }
    for (server, disk) in disks.iter().enumerate() {
        cluster.engine.end(server, Signal::KILL);
        disk.power_on();
        cluster.engine.restart(server);
    }
    cluster.engine.ready().await;
    for node in &cluster.nodes {
        // Shorter, or gone altogether.
        node.logged("this node applies no more entries of the log, and writes nothing").await;
        assert_eq!(node.get("/healthz").send().await.status, 503);
        assert_eq!(int(&ada.at(node).page("limit=1").await["messages"][0]["id"]), last, "nothing is lost here");
        let refused = node.post("/messages").by(&ada).json(&json!({"content": "no"})).send().await;
        assert_eq!(refused.status, 503, "{refused:?}");
    }
    drop(cluster);
}
