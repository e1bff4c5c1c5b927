//! A push service of the tests' own, and the browser behind it: TLS on loopback with a certificate that only the tests
//! trust, and the browser's side of RFC 8291.

use std::collections::{HashMap, VecDeque};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use data_encoding::BASE64URL_NOPAD;
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::agreement::{ECDH_P256, EphemeralPrivateKey, UnparsedPublicKey, agree_ephemeral};
use ring::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

/// The service's name, which its certificate is for.
pub(crate) const HOST: &str = "push.test";
/// Longer than any answer should take, on any machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// How a push is answered.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Answer {
    /// With a status, and perhaps headers, each with its line break.
    Status(u16, &'static str),
    /// Not at all, while the connection stays open.
    Nothing,
    /// A byte now and then, without end.
    Slowly,
    /// The connection ends instead.
    HangUp,
    /// Headers without end.
    Endlessly,
    /// With 201, after more interim heads than anybody needs.
    Interimly,
}

/// A push as it came in.
#[derive(Debug)]
pub(crate) struct Push {
    pub(crate) path: String,
    /// By their names in lower case.
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
    pub(crate) came_at: Instant,
}

/// A listening push service. Its threads end with the test's process.
pub(crate) struct PushService {
    directory: TempDir,
    port: u16,
    answers: Arc<Mutex<VecDeque<Answer>>>,
    pushes: Receiver<Push>,
}

impl PushService {
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
            .args(["-subj", "/CN=push.test", "-addext", "subjectAltName=DNS:push.test"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
            .arg(directory.path().join("key.pem"))
            .arg("-out")
            .arg(directory.path().join("root.pem"))
            .output()
            .expect("openssl is installed");
        assert!(made.status.success(), "{made:?}");
        let write = |name, text| std::fs::write(directory.path().join(name), text).expect("a file");
        write("hosts", "127.0.0.1 push.test\n");
        // Nothing answers there: names that are not in the other file have no address.
        write("resolv.conf", "nameserver 127.0.0.1\n");
        let chain = CertificateDer::from_pem_file(directory.path().join("root.pem")).expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(directory.path().join("key.pem")).expect("a key");
        let config = ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .and_then(|config| config.with_no_client_auth().with_single_cert(vec![chain], key));
        let config = Arc::new(config.expect("a certificate with its key"));

        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let answers = Arc::new(Mutex::new(VecDeque::new()));
        let (came, pushes) = mpsc::channel();
        let coming = Arc::clone(&answers);
        std::thread::spawn(move || {
            for tcp in listener.incoming().flatten() {
                let (config, coming, came) = (Arc::clone(&config), Arc::clone(&coming), came.clone());
                std::thread::spawn(move || {
                    let session = ServerConnection::new(config).expect("a session");
                    let mut stream = BufReader::new(StreamOwned::new(session, tcp));
                    // A client that trusts another root, or hangs up, has not pushed.
                    let Ok(push) = read_push(&mut stream) else { return };
                    let answer = coming.lock().expect("no panic").pop_front().unwrap_or(Answer::Status(201, ""));
                    // The test may have ended.
                    came.send(push).ok();
                    give(answer, stream.get_mut()).ok();
                });
            }
        });
        Self { directory, port, answers, pushes }
    }

    /// Where its root certificate, `hosts` and `resolv.conf` are.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The endpoint of the subscription `name`.
    pub(crate) fn endpoint(name: &str) -> String {
        format!("https://{HOST}/{name}")
    }

    /// Answers the next pushes so; those after them with 201.
    pub(crate) fn answer(&self, answers: &[Answer]) {
        self.answers.lock().expect("no panic").extend(answers);
    }

    /// Waits for the next push.
    pub(crate) fn next(&self) -> Push {
        self.pushes.recv_timeout(PATIENCE).expect("a push")
    }

    /// A push that has come already.
    pub(crate) fn try_next(&self) -> Option<Push> {
        self.pushes.try_recv().ok()
    }
}

type Stream = StreamOwned<ServerConnection, TcpStream>;

fn read_push(stream: &mut BufReader<Stream>) -> io::Result<Push> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let request = lines.remove(0);
    let path = request.strip_prefix("POST ").and_then(|rest| rest.strip_suffix(" HTTP/1.1"));
    let path = path.unwrap_or_else(|| panic!("{request}")).to_owned();
    let header = |line: &String| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
    let headers: HashMap<_, _> = lines.iter().filter_map(header).collect();
    let length = headers.get("content-length").and_then(|length| length.parse().ok());
    let mut body = vec![0; length.expect("a length")];
    stream.read_exact(&mut body)?;
    Ok(Push { path, headers, body, came_at: Instant::now() })
}

fn give(answer: Answer, stream: &mut Stream) -> io::Result<()> {
    match answer {
        Answer::Status(status, headers) => {
            write!(stream, "HTTP/1.1 {status} So\r\n{headers}Content-Length: 2\r\n\r\nok")?;
            stream.conn.send_close_notify();
            stream.flush()
        }
        // Until the client has enough of it.
        Answer::Nothing => stream.read(&mut [0]).map(drop),
        Answer::Slowly => loop {
            stream.write_all(b"H")?;
            stream.flush()?;
            std::thread::sleep(Duration::from_millis(500));
        },
        Answer::Endlessly => {
            stream.write_all(b"HTTP/1.1 201 Created\r\n")?;
            loop {
                stream.write_all(b"X-More: more\r\n")?;
            }
        }
        Answer::Interimly => {
            for _ in 0..512 {
                stream.write_all(b"HTTP/1.1 103 Early Hints\r\n\r\n")?;
            }
            give(Answer::Status(201, ""), stream)
        }
        Answer::HangUp => Ok(()),
    }
}

/// A browser's keys, both halves.
pub(crate) struct Browser {
    private: Vec<u8>,
    auth: Vec<u8>,
}

impl Browser {
    /// The one of RFC 8291 appendix A.
    pub(crate) fn of_rfc_8291() -> Self {
        let bytes = |text: &str| BASE64URL_NOPAD.decode(text.as_bytes()).expect("base64url");
        Self { private: bytes("q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94"), auth: bytes("BTBZMqHH6r4Tts7J_aSIgg") }
    }

    #[expect(deprecated, reason = "ring gives no other way to a key that is used more than once")]
    fn key(&self) -> EphemeralPrivateKey {
        let random = ring::test::rand::FixedSliceRandom { bytes: &self.private };
        EphemeralPrivateKey::generate(&ECDH_P256, &random).expect("a key of the curve")
    }

    fn public(&self) -> Vec<u8> {
        self.key().compute_public_key().expect("a key of the curve").as_ref().to_vec()
    }

    /// `keys.p256dh` of its subscription.
    pub(crate) fn p256dh(&self) -> String {
        BASE64URL_NOPAD.encode(&self.public())
    }

    /// `keys.auth` of its subscription.
    pub(crate) fn auth(&self) -> String {
        BASE64URL_NOPAD.encode(&self.auth)
    }

    /// What a push's `body` says (RFC 8291 3.1).
    pub(crate) fn decrypt(&self, body: &[u8]) -> String {
        let (salt, rest) = body.split_at(16);
        let (size, rest) = rest.split_at(4);
        assert_eq!(size, 4096_u32.to_be_bytes());
        assert_eq!(rest[0], 65);
        let (sender, sealed) = rest[1..].split_at(65);
        let input = agree_ephemeral(self.key(), &UnparsedPublicKey::new(&ECDH_P256, sender), |shared| {
            let prk = Salt::new(HKDF_SHA256, &self.auth).extract(shared);
            expand::<32>(&prk, &[b"WebPush: info\0", &self.public(), sender])
        });
        let prk = Salt::new(HKDF_SHA256, salt).extract(&input.expect("the sender's key is one of the curve"));
        let key = UnboundKey::new(&AES_128_GCM, &expand::<16>(&prk, &[b"Content-Encoding: aes128gcm\0"]));
        let nonce = Nonce::assume_unique_for_key(expand(&prk, &[b"Content-Encoding: nonce\0"]));
        let mut sealed = sealed.to_vec();
        let opened = LessSafeKey::new(key.expect("a key")).open_in_place(nonce, Aad::empty(), &mut sealed);
        let opened = opened.expect("it was encrypted for this browser");
        let end = opened.iter().rposition(|&byte| byte != 0).expect("padding has a delimiter");
        assert_eq!(opened[end], 2, "the last record (RFC 8188 2)");
        String::from_utf8(opened[..end].to_vec()).expect("text")
    }
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

fn expand<const N: usize>(prk: &Prk, info: &[&[u8]]) -> [u8; N] {
    let mut out = [0; N];
    prk.expand(info, Length(N)).and_then(|okm| okm.fill(&mut out)).expect("it is short");
    out
}
