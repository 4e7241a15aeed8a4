//! What a relay says that it can do: its job types, and who could do each.

use serde::{Deserialize, Serialize};

use crate::catalogue::{Catalogue, Engine, JobType, Tier, TypeLimits};
use crate::job::Source;
use crate::names::{Ask, Model, QueueName};
use crate::order::Task;

/// What people are told of a type that has no native engine.
pub(crate) const CLOUD_ALONE: &str = "only the cloud can do this until a native engine exists";

/// Who could take a job of a type at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Present {
    /// A worker on the relay's machine has its model.
    pub local: bool,
    /// A worker of the room has it.
    pub peer: bool,
    /// An endpoint is configured for its queue and may be asked.
    pub cloud: bool,
}

/// A job type as clients are told of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Capability {
    /// What a submission calls it.
    pub id: Ask,
    /// What people call it.
    pub label: String,
    /// A word or two beside the label.
    pub badge: String,
    /// How much work a picture gets.
    pub tier: Tier,
    /// Its queue.
    pub queue: QueueName,
    /// Its model.
    pub model: Model,
    /// What is done.
    pub task: Task,
    /// Pixels per row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Denoising steps.
    pub steps: u32,
    /// Weight of classifier-free guidance.
    pub guidance: f32,
    /// How much of the first picture is painted over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strength: Option<f32>,
    /// Length of a clip.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f32>,
    /// How long one takes, as the type says.
    pub expected_s: f64,
    /// Whether a submission must name a first picture.
    pub needs_init_image: bool,
    /// What a submission may ask for instead.
    pub limits: TypeLimits,
    /// Who can do it at all.
    pub processors: Vec<Source>,
    /// Who could do it at the moment.
    pub ready: Vec<Source>,
    /// What people should know before they ask for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Catalogue {
    /// The answer to what can be asked for here; `present` says who is there for a type.
    pub fn answer(&self, mut present: impl FnMut(&JobType) -> Present) -> Vec<Capability> {
        self.types().map(|job_type| capability(job_type, present(job_type))).collect()
    }
}

fn capability(job_type: &JobType, present: Present) -> Capability {
    let is_native = job_type.engine == Engine::Native;
    let processors = [(Source::Local, is_native), (Source::Peer, is_native), (Source::Cloud, true)];
    let there = [present.local, present.peer, present.cloud];
    let processors: Vec<(Source, bool)> = processors
        .into_iter()
        .zip(there)
        .filter(|((_, can), _)| *can)
        .map(|((source, _), there)| (source, there))
        .collect();
    let ready: Vec<Source> = processors.iter().filter(|(_, there)| *there).map(|(source, _)| *source).collect();
    Capability {
        id: job_type.id.clone(),
        label: job_type.label.clone(),
        badge: job_type.badge.clone(),
        tier: job_type.tier,
        queue: job_type.queue.clone(),
        model: job_type.model.clone(),
        task: job_type.task,
        width: job_type.width,
        height: job_type.height,
        steps: job_type.steps,
        guidance: job_type.guidance,
        strength: job_type.strength,
        seconds: job_type.seconds,
        expected_s: job_type.expected.as_secs_f64(),
        needs_init_image: job_type.needs_init_image,
        limits: job_type.limits,
        processors: processors.into_iter().map(|(source, _)| source).collect(),
        note: note(job_type, !ready.is_empty()),
        ready,
    }
}

fn note(job_type: &JobType, is_ready: bool) -> Option<String> {
    match (job_type.engine, is_ready) {
        (Engine::Native, true) => None,
        (Engine::Native, false) => {
            Some(format!("nobody can do this now: it waits for a worker that has the model {}", job_type.model))
        }
        (Engine::OverflowOnly, true) => Some(CLOUD_ALONE.to_owned()),
        (Engine::OverflowOnly, false) => Some(format!("{CLOUD_ALONE}, and no endpoint may be asked for it now")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(present: Present) -> Vec<Capability> {
        Catalogue::shipped().answer(|_| present)
    }

    fn of<'a>(answer: &'a [Capability], id: &str) -> &'a Capability {
        answer.iter().find(|one| one.id.as_str() == id).unwrap()
    }

    #[test]
    fn clips_say_that_only_the_cloud_can_do_them() {
        let everybody = answer(Present { local: true, peer: true, cloud: true });
        let clip = of(&everybody, "video_fast");
        assert_eq!((&clip.processors, &clip.ready), (&vec![Source::Cloud], &vec![Source::Cloud]));
        assert_eq!(clip.note.as_deref(), Some(CLOUD_ALONE));
        let peers = answer(Present { peer: true, ..Present::default() });
        let clip = of(&peers, "video_fast");
        assert_eq!(clip.ready, []);
        assert!(clip.note.as_deref().unwrap().starts_with(CLOUD_ALONE));
    }

    #[test]
    fn a_picture_says_who_is_there_and_what_is_missing() {
        let peers = answer(Present { peer: true, ..Present::default() });
        let fast = of(&peers, "demo_fast");
        assert_eq!(fast.processors, [Source::Local, Source::Peer, Source::Cloud]);
        assert_eq!((&fast.ready, &fast.note), (&vec![Source::Peer], &None));
        let nobody = answer(Present::default());
        assert!(of(&nobody, "demo_fast").note.as_deref().unwrap().contains("the model demo"));
    }

    #[test]
    fn the_answer_is_plain_json() {
        let answer = answer(Present { cloud: true, ..Present::default() });
        let json = serde_json::to_value(&answer).unwrap();
        assert_eq!(json[3]["id"], "sdxl_img2img");
        assert_eq!((&json[3]["needs_init_image"], &json[3]["strength"]), (&true.into(), &0.75.into()));
        assert_eq!((&json[0]["expected_s"], &json[0]["processors"][1]), (&5.0.into(), &"peer".into()));
        assert_eq!(json[0].get("seconds"), None);
        assert_eq!(serde_json::from_value::<Vec<Capability>>(json).unwrap(), answer);
    }
}
