//! The routing table: which paths exist and which methods each accepts. `Allow` and the methods told to other origins
//! follow from it, so that no second list can disagree.

use hyper::Method;

use crate::http::{ApiError, assets, percent_decode};
use crate::model::Username;

/// What a route does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Register,
    Login,
    Logout,
    MessageHistory,
    SetPassword,
    Sessions,
    EndSession,
    EndOtherSessions,
    DeleteAccount,
    Export,
    Invite,
    Invites,
    DeleteInvite,
    Ban,
    Unban,
    StoreImage,
    Image,
    Search,
    SendMessage,
    EditMessage,
    DeleteMessage,
    Rooms,
    CreateRoom,
    ChangeRoom,
    AddMember,
    RemoveMember,
    NotifyRoom,
    Direct,
    Users,
    About,
    WebSocket,
    #[cfg(feature = "push")]
    PushKey,
    #[cfg(feature = "push")]
    Subscribe,
    #[cfg(feature = "push")]
    Unsubscribe,
    Health,
    /// A file of the web client. These paths come from the bundle, not from the table.
    Asset,
}

impl Action {
    /// Whether the answer depends on what was written before, at any node: a node that is behind must wait for the log
    /// first.
    pub(super) fn reads(self) -> bool {
        // Registering, logging in or out and the health check are changes, decided where they are applied. A WebSocket
        // waits by itself, and assets are not in the database.
        !matches!(self, Self::Register | Self::Login | Self::Logout | Self::Health | Self::WebSocket | Self::Asset)
    }
}

/// Method, path pattern and action. A segment in braces is a [parameter](Params): it matches any one segment that is
/// not empty. If two patterns match a path, the first wins.
type Route = (Method, &'static str, Action);

static ROUTES: &[Route] = &[
    (Method::POST, "/register", Action::Register),
    (Method::POST, "/login", Action::Login),
    (Method::POST, "/logout", Action::Logout),
    (Method::GET, "/messages", Action::MessageHistory),
    (Method::POST, "/password", Action::SetPassword),
    (Method::GET, "/sessions", Action::Sessions),
    (Method::DELETE, "/sessions", Action::EndOtherSessions),
    (Method::DELETE, "/sessions/{id}", Action::EndSession),
    (Method::DELETE, "/account", Action::DeleteAccount),
    (Method::GET, "/export", Action::Export),
    (Method::POST, "/invites", Action::Invite),
    (Method::GET, "/invites", Action::Invites),
    (Method::DELETE, "/invites/{id}", Action::DeleteInvite),
    (Method::POST, "/users/{name}/ban", Action::Ban),
    (Method::POST, "/users/{name}/unban", Action::Unban),
    (Method::POST, "/images", Action::StoreImage),
    (Method::GET, "/images/{id}", Action::Image),
    (Method::GET, "/search", Action::Search),
    (Method::POST, "/messages", Action::SendMessage),
    (Method::PATCH, "/messages/{id}", Action::EditMessage),
    (Method::DELETE, "/messages/{id}", Action::DeleteMessage),
    (Method::GET, "/rooms", Action::Rooms),
    (Method::POST, "/rooms", Action::CreateRoom),
    (Method::PATCH, "/rooms/{id}", Action::ChangeRoom),
    (Method::PUT, "/rooms/{id}/members/{name}", Action::AddMember),
    (Method::DELETE, "/rooms/{id}/members/{name}", Action::RemoveMember),
    (Method::PUT, "/rooms/{id}/notify", Action::NotifyRoom),
    (Method::POST, "/direct", Action::Direct),
    (Method::GET, "/users", Action::Users),
    (Method::GET, "/about", Action::About),
    (Method::GET, "/ws", Action::WebSocket),
    #[cfg(feature = "push")]
    (Method::GET, "/push", Action::PushKey),
    #[cfg(feature = "push")]
    (Method::PUT, "/push", Action::Subscribe),
    #[cfg(feature = "push")]
    (Method::DELETE, "/push", Action::Unsubscribe),
    (Method::GET, "/healthz", Action::Health),
];

/// The parameters of a path, by the names in its pattern, still percent-encoded.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Params<'a>(Vec<(&'static str, &'a str)>);

impl Params<'_> {
    /// A parameter that is an id. If it is not a number, the path does not exist.
    pub(super) fn id(&self, name: &str) -> Result<i64, ApiError> {
        let digits = self.get(name).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        digits.and_then(|digits| digits.parse().ok()).ok_or(ApiError::NotFound)
    }

    /// A parameter that is the name of a user.
    pub(super) fn username(&self, name: &str) -> Result<Username, ApiError> {
        let decoded = self.get(name).and_then(percent_decode);
        decoded.and_then(|name| Username::parse(&name)).ok_or(ApiError::NotFound)
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }
}

/// The result of looking up a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    Route(Action, Params<'a>),
    /// The path exists, but not with this method: the value of `Allow`.
    OtherMethods(String),
    Nothing,
}

/// Looks up a request. Pass GET for HEAD.
pub(super) fn find<'a>(method: &Method, path: &'a str) -> Found<'a> {
    if assets::exists(path) {
        return match *method {
            Method::GET => Found::Route(Action::Asset, Params::default()),
            _ => Found::OtherMethods(allow([&Method::GET])),
        };
    }
    find_in(ROUTES, method, path)
}

fn find_in<'a>(routes: &[Route], method: &Method, path: &'a str) -> Found<'a> {
    let mut methods = Vec::new();
    for (known, pattern, action) in routes {
        if let Some(params) = match_path(pattern, path) {
            if known == method {
                return Found::Route(*action, params);
            }
            methods.push(known);
        }
    }
    if methods.is_empty() { Found::Nothing } else { Found::OtherMethods(allow(methods)) }
}

/// The parameters of `path`, if it matches `pattern`.
fn match_path<'a>(pattern: &'static str, path: &'a str) -> Option<Params<'a>> {
    let mut params = Params::default();
    let mut segments = path.split('/');
    for expected in pattern.split('/') {
        let segment = segments.next()?;
        match expected.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
            Some(_) if segment.is_empty() => return None,
            Some(name) => params.0.push((name, segment)),
            None if segment != expected => return None,
            None => {}
        }
    }
    segments.next().is_none().then_some(params)
}

/// The value of `Allow` for a path that accepts `methods`: HEAD comes with GET, and OPTIONS with every path.
fn allow<'a>(methods: impl IntoIterator<Item = &'a Method>) -> String {
    let mut allow = String::new();
    for method in methods {
        allow.push_str(if *method == Method::GET { "GET, HEAD" } else { method.as_str() });
        allow.push_str(", ");
    }
    allow + "OPTIONS"
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The actions are arbitrary: the tests are about where a request leads.
    static SOME: &[Route] = &[
        (Method::GET, "/rooms", Action::MessageHistory),
        (Method::POST, "/rooms", Action::Register),
        (Method::PATCH, "/rooms/{id}", Action::Login),
        (Method::PUT, "/rooms/{id}/members/{name}", Action::Logout),
        (Method::DELETE, "/rooms/{id}/members/{name}", Action::Health),
    ];

    fn found(method: &Method, path: &'static str) -> Found<'static> {
        find_in(SOME, method, path)
    }

    #[test]
    fn a_path_leads_to_its_action_with_its_parameters() {
        assert_eq!(found(&Method::POST, "/rooms"), Found::Route(Action::Register, Params::default()));
        assert_eq!(found(&Method::PATCH, "/rooms/7"), Found::Route(Action::Login, Params(vec![("id", "7")])));
        let Found::Route(Action::Health, params) = found(&Method::DELETE, "/rooms/7/members/a%64a") else {
            panic!("the table has it");
        };
        assert_eq!(params.id("id"), Ok(7));
        assert_eq!(params.username("name").unwrap().as_str(), "ada");
        assert_eq!(params.id("name"), Err(ApiError::NotFound));
        assert_eq!(params.id("nope"), Err(ApiError::NotFound));
    }

    #[test]
    fn a_path_of_another_form_leads_nowhere() {
        for path in
            ["", "/", "/rooms/", "/rooms//members/ada", "/rooms/7/members", "/rooms/7/members/", "/Rooms", "rooms"]
        {
            assert_eq!(found(&Method::GET, path), Found::Nothing, "{path}");
        }
    }

    #[test]
    fn another_method_is_answered_with_those_the_path_takes() {
        let others = |methods: &str| Found::OtherMethods(methods.into());
        assert_eq!(found(&Method::DELETE, "/rooms"), others("GET, HEAD, POST, OPTIONS"));
        assert_eq!(found(&Method::GET, "/rooms/7"), others("PATCH, OPTIONS"));
        assert_eq!(found(&Method::OPTIONS, "/rooms/7/members/ada"), others("PUT, DELETE, OPTIONS"));
        assert_eq!(find(&Method::POST, "/"), others("GET, HEAD, OPTIONS"));
    }

    #[test]
    fn an_id_is_a_number_in_decimal_digits() {
        for bad in ["x", "-1", "+1", "%31", "1.0", "9223372036854775808"] {
            assert_eq!(Params(vec![("id", bad)]).id("id"), Err(ApiError::NotFound), "{bad}");
        }
    }

    #[test]
    fn a_name_in_a_path_is_decoded_once_and_checked() {
        let name = |segment| Params(vec![("name", segment)]).username("name").ok().map(|name| name.as_str().to_owned());
        assert_eq!(name("%41da%2eL").as_deref(), Some("Ada.L"));
        for bad in ["%", "%4", "%4g", "%+1", "a%2Fb", "%2561", "%C3%A4", "%FF", "a+b", "(deleted%201)"] {
            assert_eq!(name(bad), None, "{bad}");
        }
    }

    #[test]
    fn no_route_is_there_twice_or_hidden_by_a_file() {
        for (at, (method, path, _)) in ROUTES.iter().enumerate() {
            assert!(!assets::exists(path), "{path}");
            assert!(!ROUTES[..at].iter().any(|(other, known, _)| other == method && known == path), "{method} {path}");
        }
    }
    #[test]
    fn the_document_for_other_programs_has_these_routes_with_their_parameters_and_no_others() {
        let document: serde_json::Value = serde_json::from_str(include_str!("../../docs/openapi.json")).unwrap();
        let mut told = Vec::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            let item = item.as_object().unwrap();
            let parameters = item.get("parameters").and_then(|list| list.as_array()).into_iter().flatten();
            let names: Vec<_> = parameters.map(|parameter| parameter["$ref"].as_str().unwrap()).collect();
            for name in path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
                assert!(names.contains(&&*format!("#/components/parameters/{name}")), "{path}: {name}");
            }
            let methods = item.keys().filter(|key| *key != "parameters");
            told.extend(methods.map(|method| format!("{} {path}", method.to_uppercase())));
        }
        if cfg!(not(feature = "push")) {
            told.retain(|route| !route.ends_with(" /push"));
        }
        let mut routes: Vec<_> = ROUTES.iter().map(|(method, path, _)| format!("{method} {path}")).collect();
        told.sort();
        routes.sort();
        assert_eq!(told, routes);
    }
}
