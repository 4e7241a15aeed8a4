//! The DevTools protocol over two pipes: commands out, answers and events in, each a JSON text that ends in a zero byte.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};

use super::PATIENCE;
use super::witness::Witness;

/// The tab, or the browser, was closed while an answer was due.
#[derive(Debug, thiserror::Error)]
#[error("the tab or the browser was closed")]
pub struct TabClosed;

/// Both pipes, and everything that waits for what comes in.
pub struct Pipe {
    commands: Mutex<ChildStdin>,
    next: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Answers that somebody waits for, and the session each was asked in.
    due: HashMap<u64, (Option<String>, mpsc::Sender<Value>)>,
    /// Who hears the events of a session: a tab's witness hears those of its workers too.
    witnesses: HashMap<String, Arc<Witness>>,
    /// Set once the browser has closed its pipe.
    is_closed: bool,
}

impl Pipe {
    /// Reads answers and events on a thread of its own until the browser ends.
    pub fn open(commands: ChildStdin, answers: ChildStdout) -> Arc<Self> {
        let pipe = Arc::new(Self { commands: Mutex::new(commands), next: AtomicU64::new(1), state: Mutex::default() });
        let reading = Arc::clone(&pipe);
        std::thread::spawn(move || reading.read(answers));
        pipe
    }

    /// Sends a command and waits for its answer.
    pub fn call(&self, session: Option<&str>, method: &str, parameters: Value) -> Result<Value> {
        self.call_within(session, method, parameters, PATIENCE)
    }

    /// The same with another patience.
    pub fn call_within(
        &self,
        session: Option<&str>,
        method: &str,
        parameters: Value,
        patience: Duration,
    ) -> Result<Value> {
        let answer = self.send(session, method, parameters)?;
        let answer = match answer.recv_timeout(patience) {
            Ok(answer) => answer,
            Err(mpsc::RecvTimeoutError::Disconnected) => return Err(anyhow!(TabClosed).context(method.to_owned())),
            Err(mpsc::RecvTimeoutError::Timeout) => bail!("{method}: no answer within {} s", patience.as_secs()),
        };
        match answer.get("error") {
            Some(error) => bail!("{method}: {}", error["message"].as_str().unwrap_or("an error without a message")),
            None => Ok(answer["result"].clone()),
        }
    }

    /// From here on, `witness` hears what happens in `session` and in the workers that start there.
    pub fn listen(&self, session: &str, witness: Arc<Witness>) {
        self.state().witnesses.insert(session.to_owned(), witness);
    }

    /// The sessions of a witness: the tab's and those of its workers.
    pub fn sessions_of(&self, witness: &Arc<Witness>) -> Vec<String> {
        let state = self.state();
        let own = state.witnesses.iter().filter(|(_, held)| Arc::ptr_eq(held, witness));
        own.map(|(session, _)| session.clone()).collect()
    }

    fn send(&self, session: Option<&str>, method: &str, parameters: Value) -> Result<mpsc::Receiver<Value>> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = mpsc::channel();
        {
            let mut state = self.state();
            if state.is_closed {
                return Err(anyhow!(TabClosed).context(method.to_owned()));
            }
            state.due.insert(id, (session.map(str::to_owned), sender));
        }
        let mut message = json!({ "id": id, "method": method, "params": parameters });
        if let Some(session) = session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        let mut commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        commands.write_all(&bytes).and_then(|()| commands.flush()).with_context(|| method.to_owned())?;
        Ok(answer)
    }

    fn read(&self, answers: ChildStdout) {
        let mut answers = BufReader::new(answers);
        let mut bytes = Vec::new();
        while answers.read_until(0, &mut bytes).is_ok_and(|read| read > 0) {
            let message = bytes.strip_suffix(&[0]).unwrap_or(&bytes);
            if let Ok(message) = serde_json::from_slice::<Value>(message) {
                self.handle(message);
            }
            bytes.clear();
        }
        let mut state = self.state();
        state.is_closed = true;
        // Whoever waits for an answer hears that there will be none.
        state.due.clear();
    }

    fn handle(&self, message: Value) {
        if let Some(id) = message["id"].as_u64() {
            if let Some((_, sender)) = self.state().due.remove(&id) {
                // Nobody may be waiting any more.
                let _ = sender.send(message);
            }
            return;
        }
        let (method, parameters) = (message["method"].as_str().unwrap_or_default(), &message["params"]);
        let session = message["sessionId"].as_str().unwrap_or_default();
        let child = parameters["sessionId"].as_str().unwrap_or_default();
        let witness = self.state().witnesses.get(session).cloned();
        match (method, witness) {
            ("Target.attachedToTarget", Some(witness)) => {
                self.listen(child, Arc::clone(&witness));
                self.prepare(child, &witness);
            }
            ("Target.detachedFromTarget", _) => {
                let mut state = self.state();
                state.witnesses.remove(child);
                state.due.retain(|_, (session, _)| session.as_deref() != Some(child));
            }
            (_, Some(witness)) => witness.handle(method, parameters),
            (_, None) => {}
        }
    }

    /// A worker waits at its first line until it tells what happens in it. Answers are not waited for: this runs where
    /// they are read. Not every kind of worker knows every command.
    fn prepare(&self, session: &str, witness: &Witness) {
        let mut commands = vec![
            ("Runtime.enable", json!({})),
            ("Log.enable", json!({})),
            ("Network.enable", json!({})),
            ("Target.setAutoAttach", attach_workers()),
        ];
        if witness.is_offline() {
            commands.push(("Network.emulateNetworkConditions", network(true)));
        }
        commands.push(("Runtime.runIfWaitingForDebugger", json!({})));
        for (method, parameters) in commands {
            // A pipe that is closed is seen by whoever next waits for an answer.
            let _ = self.send(Some(session), method, parameters);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has workers attached as they start, where they wait for [`Pipe::prepare`].
pub fn attach_workers() -> Value {
    json!({ "autoAttach": true, "waitForDebuggerOnStart": true, "flatten": true })
}

/// What the browser is told about the network.
pub fn network(is_offline: bool) -> Value {
    json!({ "offline": is_offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1 })
}
