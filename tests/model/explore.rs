//! Visits every state that a model can be in, breadth first, so that what it finds it finds by the shortest way.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;
use std::rc::Rc;

/// Something that takes steps, each of which may be the next one.
pub(crate) trait Model: Clone + Debug + Eq + Hash {
    /// Every step that can be taken, by name, and where it leads to or which promise it breaks. None is enabled at an
    /// end.
    fn steps(&self) -> Vec<(&'static str, Result<Self, &'static str>)>;

    /// What is wrong with a state in which no step can be taken.
    fn wrong_at_the_end(&self) -> Option<&'static str>;
}

/// A broken promise, and the steps that led to it.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) broken: &'static str,
    pub(crate) steps: Vec<&'static str>,
}

/// Past this a model has run away.
const STATES_MAX: usize = 5_000_000;

/// Goes everywhere from `start`; how many states there are, or the first promise that is broken.
pub(crate) fn explore<M: Model>(start: M) -> Result<usize, Found> {
    let start = Rc::new(start);
    let mut known = HashSet::from([Rc::clone(&start)]);
    // Each state with the one before it and the step between.
    let mut visited = vec![(start, 0, "")];
    let mut at = 0;
    while at < visited.len() {
        let steps = visited[at].0.steps();
        if steps.is_empty()
            && let Some(broken) = visited[at].0.wrong_at_the_end()
        {
            return Err(Found { broken, steps: path(&visited, at, "the end") });
        }
        for (name, next) in steps {
            let next = next.map_err(|broken| Found { broken, steps: path(&visited, at, name) })?;
            let next = Rc::new(next);
            if known.insert(Rc::clone(&next)) {
                visited.push((next, at, name));
            }
        }
        at += 1;
        assert!(visited.len() < STATES_MAX, "over {STATES_MAX} states");
    }
    Ok(visited.len())
}

/// The steps to the state number `at`, and `last`.
fn path<M>(visited: &[(M, usize, &'static str)], mut at: usize, last: &'static str) -> Vec<&'static str> {
    let mut steps = vec![last];
    while at != 0 {
        steps.push(visited[at].2);
        at = visited[at].1;
    }
    steps.reverse();
    steps
}
