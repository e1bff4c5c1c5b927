//! Names to addresses, without the C library.
//!
//! `getaddrinfo` loads other libraries by the system's configuration, which a static binary cannot do and an image of
//! one file does not have. So the two files that every system has, `/etc/hosts` and `/etc/resolv.conf`, are read here,
//! each time anew since networks come and go, and the name servers are asked. Other configuration (mDNS, LDAP, search
//! domains, a name server at a link-local address) is ignored: push services have public names.

use std::fs::File;
use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::dns::{self, Answer, Family};
use crate::limits::push::{
    DNS_ATTEMPTS, DNS_FILE_MAX_BYTES, DNS_SERVERS_MAX, DNS_TCP_MAX_BYTES, DNS_TIMEOUT, DNS_UDP_MAX_BYTES,
};

const DNS_PORT: u16 = 53;

/// Finds the addresses of names.
#[derive(Debug)]
pub(super) struct Resolver {
    hosts: PathBuf,
    configuration: PathBuf,
    port: u16,
}

impl Resolver {
    /// The system's.
    pub(super) fn system() -> Self {
        Self { hosts: "/etc/hosts".into(), configuration: "/etc/resolv.conf".into(), port: DNS_PORT }
    }

    /// With files of the tests' own.
    #[cfg(feature = "push-test")]
    pub(super) fn of_directory(directory: &Path) -> Self {
        Self { hosts: directory.join("hosts"), configuration: directory.join("resolv.conf"), port: DNS_PORT }
    }

    /// The addresses of `host`, at least one; those of IPv4 first, which work in more places.
    pub(super) async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let (hosts, configuration) = (self.hosts.clone(), self.configuration.clone());
        let read = tokio::task::spawn_blocking(move || (read_file(&hosts), read_file(&configuration)));
        let (hosts, configuration) = read.await.map_err(io::Error::other)?;
        let listed = addresses_in_hosts(&hosts, host);
        if !listed.is_empty() {
            return Ok(listed);
        }
        let mut failure = io::Error::other("no name server answers");
        let servers = name_servers(&configuration);
        for server in servers.iter().cycle().take(DNS_ATTEMPTS * servers.len()) {
            let server = SocketAddr::new(*server, self.port);
            match tokio::try_join!(ask(server, host, Family::V4), ask(server, host, Family::V6)) {
                Ok((v4, v6)) if v4.is_empty() && v6.is_empty() => {
                    return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
                }
                Ok((v4, v6)) => return Ok([v4, v6].concat()),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}

/// The text of a file, up to the limit; empty if it cannot be read, as in the C library.
fn read_file(path: &Path) -> String {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(DNS_FILE_MAX_BYTES).read_to_end(&mut bytes));
    if let Err(error) = read {
        tracing::debug!(%error, path = %path.display(), "cannot read");
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// hosts(5): an address and its names a line.
fn addresses_in_hosts(file: &str, host: &str) -> Vec<IpAddr> {
    let lines = file.lines().map(|line| line.split('#').next().unwrap_or_default());
    let addresses = lines.filter_map(|line| {
        let mut words = line.split_whitespace();
        let address = words.next()?.parse().ok()?;
        words.any(|name| name.eq_ignore_ascii_case(host)).then_some(address)
    });
    addresses.collect()
}

/// resolv.conf(5): up to three name servers; this machine, if there are none.
fn name_servers(file: &str) -> Vec<IpAddr> {
    let server = |line: &str| line.trim().strip_prefix("nameserver")?.trim().parse().ok();
    let mut servers: Vec<IpAddr> = file.lines().filter_map(server).take(DNS_SERVERS_MAX).collect();
    if servers.is_empty() {
        servers.push(Ipv4Addr::LOCALHOST.into());
    }
    servers
}

/// Asks one name server.
async fn ask(server: SocketAddr, host: &str, family: Family) -> io::Result<Vec<IpAddr>> {
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    let answer = match timeout(DNS_TIMEOUT, ask_by_datagram(server, host, family)).await.map_err(late)?? {
        Answer::Truncated => timeout(DNS_TIMEOUT, ask_by_stream(server, host, family)).await.map_err(late)??,
        answer => answer,
    };
    match answer {
        Answer::Addresses(addresses) => Ok(addresses),
        Answer::Truncated | Answer::Failed => Err(io::Error::other("the name server cannot answer")),
    }
}

/// Waits for the answer to one datagram. The kernel chooses the port and drops datagrams that are not from the server;
/// to forge an answer, one has to guess that port and the id.
async fn ask_by_datagram(server: SocketAddr, host: &str, family: Family) -> io::Result<Answer> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    let id = rand::random();
    socket.send(&dns::question(id, host, family)).await?;
    let mut message = vec![0; DNS_UDP_MAX_BYTES];
    loop {
        let length = socket.recv(&mut message).await?;
        if let Some(answer) = dns::read_answer(&message[..length], id, host, family) {
            return Ok(answer);
        }
    }
}

async fn ask_by_stream(server: SocketAddr, host: &str, family: Family) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(server).await?;
    let id = rand::random();
    let question = dns::question(id, host, family);
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), &question[..]].concat()).await?;
    let length = usize::from(stream.read_u16().await?);
    if length > DNS_TCP_MAX_BYTES {
        return Err(io::Error::other("the name server's answer is too long"));
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await?;
    let answer = dns::read_answer(&message, id, host, family);
    answer.ok_or_else(|| io::Error::other("the name server's answer is broken"))
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::net::TcpListener;

    use super::super::dns::tests::answer_with;
    use super::*;

    /// A name server on loopback, and a resolver that asks it.
    pub(in super::super) struct NameServer {
        directory: tempfile::TempDir,
        port: u16,
        asked: Arc<AtomicUsize>,
    }

    impl NameServer {
        /// Answers the n-th question (both families count as one) with `addresses(n)`.
        pub(in super::super) async fn start(addresses: fn(usize) -> Vec<IpAddr>) -> Self {
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let port = socket.local_addr().unwrap().port();
            let asked = Arc::new(AtomicUsize::new(0));
            let counter = Arc::clone(&asked);
            tokio::spawn(async move {
                let mut message = [0; 512];
                while let Ok((length, from)) = socket.recv_from(&mut message).await {
                    let answer = answer_with(&message[..length], &addresses(counter.load(Ordering::SeqCst) / 2));
                    counter.fetch_add(1, Ordering::SeqCst);
                    socket.send_to(&answer, from).await.unwrap();
                }
            });
            Self { directory: directory("127.0.0.1"), port, asked }
        }

        pub(in super::super) fn resolver(&self) -> Resolver {
            resolver(&self.directory, self.port)
        }

        pub(in super::super) fn asked(&self) -> usize {
            self.asked.load(Ordering::SeqCst) / 2
        }
    }

    fn directory(server: &str) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("hosts"), "127.0.0.1 localhost # me\n17.1.2.3  a.example B.example\n")
            .unwrap();
        std::fs::write(directory.path().join("resolv.conf"), format!("search lan\nnameserver {server}\n")).unwrap();
        directory
    }

    fn resolver(directory: &tempfile::TempDir, port: u16) -> Resolver {
        let path = |name| directory.path().join(name);
        Resolver { hosts: path("hosts"), configuration: path("resolv.conf"), port }
    }

    fn ip(address: &str) -> IpAddr {
        address.parse().unwrap()
    }

    #[tokio::test]
    async fn the_name_server_is_asked_for_both_kinds_of_address() {
        let server = NameServer::start(|_| vec![ip("2620::1"), ip("17.1.2.3")]).await;
        assert_eq!(server.resolver().resolve("push.example").await.unwrap(), [ip("17.1.2.3"), ip("2620::1")]);
    }

    #[tokio::test]
    async fn of_several_name_servers_each_is_asked_until_one_answers() {
        let server = NameServer::start(|_| vec![ip("17.1.2.3")]).await;
        let several = directory("127.0.0.2\nnameserver 127.0.0.3\nnameserver 127.0.0.1");
        let resolver = resolver(&several, server.port);
        assert_eq!(resolver.resolve("push.example").await.unwrap(), [ip("17.1.2.3")]);
    }

    #[tokio::test]
    async fn the_hosts_file_comes_first() {
        let server = NameServer::start(|_| vec![ip("17.9.9.9")]).await;
        assert_eq!(server.resolver().resolve("b.example").await.unwrap(), [ip("17.1.2.3")]);
        assert_eq!(server.asked(), 0);
    }

    #[tokio::test]
    async fn a_name_without_addresses_is_not_found() {
        let server = NameServer::start(|_| Vec::new()).await;
        let error = server.resolver().resolve("push.example").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn a_long_answer_is_fetched_over_tcp() {
        // A port that is free for datagrams may be taken for streams.
        let (datagrams, streams) = loop {
            let datagrams = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            if let Ok(streams) = TcpListener::bind(datagrams.local_addr().unwrap()).await {
                break (datagrams, streams);
            }
        };
        let address = datagrams.local_addr().unwrap();
        tokio::spawn(async move {
            let mut message = [0; 512];
            while let Ok((length, from)) = datagrams.recv_from(&mut message).await {
                message[2..4].copy_from_slice(&0x8380_u16.to_be_bytes());
                datagrams.send_to(&message[..length], from).await.unwrap();
            }
        });
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = streams.accept().await {
                let mut question = vec![0; stream.read_u16().await.unwrap().into()];
                stream.read_exact(&mut question).await.unwrap();
                let many: Vec<_> = (1..=60).map(|last| IpAddr::from([17, 1, 2, last])).collect();
                let answer = answer_with(&question, &many);
                stream.write_u16(answer.len().try_into().unwrap()).await.unwrap();
                stream.write_all(&answer).await.unwrap();
            }
        });
        let resolver = resolver(&directory("127.0.0.1"), address.port());
        // The files are gone with their directory: this machine is asked, as the C library would.
        assert_eq!(resolver.resolve("push.example").await.unwrap().len(), 60);
    }

    #[tokio::test]
    async fn a_forged_answer_is_not_waited_for_but_passed_over() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        tokio::spawn(async move {
            let mut message = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut message).await {
                let mut forged = answer_with(&message[..length], &[ip("17.6.6.6")]);
                forged[0] ^= 1;
                socket.send_to(&forged, from).await.unwrap();
                socket.send_to(&answer_with(&message[..length], &[ip("17.1.2.3")]), from).await.unwrap();
            }
        });
        let directory = directory("127.0.0.1");
        assert_eq!(resolver(&directory, port).resolve("push.example").await.unwrap(), [ip("17.1.2.3")]);
    }

    #[test]
    fn the_files_are_read_as_the_c_library_reads_them() {
        let file = "# nameserver 1.1.1.1\nnameserver 10.0.0.1\n nameserver\t::1\nnameserver fe80::1%eth0\nnameserver 3.3.3.3\nnameserver 4.4.4.4";
        assert_eq!(name_servers(file), [ip("10.0.0.1"), ip("::1"), ip("3.3.3.3")]);
        assert_eq!(name_servers(""), [ip("127.0.0.1")]);
        assert_eq!(
            addresses_in_hosts("1.2.3.4 x # push.example\n::2 x\tPUSH.example\nnonsense push.example", "push.example"),
            [ip("::2")]
        );
    }
}
