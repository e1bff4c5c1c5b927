//! How much memory this process may have: less than the machine has, if a container or a service has a limit.

use std::fs;
use std::path::Path;

/// Where Linux shows control groups.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Bytes of memory for this process: the machine's, or the least that a control group allows.
pub(crate) fn limit() -> u64 {
    let system = rustix::system::sysinfo();
    // Both are 32 or 64 bits wide, depending on the machine.
    let machine = u128::from(system.mem_unit) * u128::from(system.totalram);
    let machine = u64::try_from(machine).unwrap_or(u64::MAX);
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    cgroup_limit(Path::new(CGROUPS), &groups).map_or(machine, |limit| limit.min(machine))
}

/// The least limit of the control groups in `groups`, which has the form of `/proc/self/cgroup`, and of all above them.
/// In a container the names may be those of the host: then only the topmost directory exists, and is the container's.
fn cgroup_limit(root: &Path, groups: &str) -> Option<u64> {
    let limits = groups.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (top, file) = match fields.next()? {
            "" => (root.to_owned(), "memory.max"),
            controllers if controllers.split(',').any(|name| name == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => return None,
        };
        let group = top.join(fields.next()?.trim_start_matches('/'));
        let levels = group.ancestors().take_while(|level| level.starts_with(&top));
        // Without a limit the second version says "max".
        levels.filter_map(|level| fs::read_to_string(level.join(file)).ok()?.trim().parse().ok()).min()
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found under a root with `files`, by a process in `groups`.
    fn found(files: &[(&str, &str)], groups: &str) -> Option<u64> {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        cgroup_limit(root.path(), groups)
    }

    #[test]
    fn the_least_limit_on_the_way_up_counts() {
        let files = [("a/memory.max", "1000\n"), ("a/b/memory.max", "max\n"), ("a/b/c/memory.max", "2000\n")];
        assert_eq!(found(&files, "0::/a/b/c\n"), Some(1000));
        assert_eq!(found(&files, "0::/\n"), None);
    }

    #[test]
    fn the_first_version_has_its_own_names() {
        let files = [("memory/memory.limit_in_bytes", "3000\n"), ("memory/a/memory.limit_in_bytes", "500\n")];
        let groups = |path: &str| format!("5:cpu,cpuacct:/x\n4:memory:{path}\n0::/\n");
        assert_eq!(found(&files, &groups("/a")), Some(500));
        assert_eq!(found(&files, &groups("/docker/what-is-outside")), Some(3000));
    }

    #[test]
    fn where_nothing_is_said_there_is_no_limit() {
        for groups in ["", "nonsense", "0::", "4:memory", "4:memory:/../..\n"] {
            assert_eq!(found(&[], groups), None, "{groups}");
        }
        assert!(limit() > 0);
    }
}
