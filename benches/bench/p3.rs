//! P3: what one life asks of the API server, by verb and resource, from its audit log.

use crate::{
    lifecycle::{Life, World, target},
    p1::TARGETS,
    report::{Goal, Report, Row},
    rig::{
        Rig,
        audit::{counted, read_again},
        samples::Spread,
    },
};
use std::fmt::Write as _;

/// Lives of each kind; the figures are for one.
const LIVES: usize = 10;

/// What each write is for. `make test` asserts the same numbers (tests/e2e/mitigation_cost.rs).
fn purpose(request: &str) -> &'static str {
    match request {
        "get deployments" => {
            "what is there before the take; what is there since, when somebody wrote between the patches of a release"
        }
        "patch deployments" => "take; restore; give back what the API server noted of our writes",
        "create mitigations" => "the entry becomes an object",
        "patch mitigations/status" => "applied; effective",
        "patch mitigations" => "the finalizer goes",
        "patch incidents/status" => "declared and applied; effective",
        "create localsubjectaccessreviews" => "whether the requester still may, asked beside the read",
        "create events" => "the mirror of the record",
        "create configmaps" => "the evidence",
        _ => "",
    }
}

/// Counts.
pub async fn run(rig: &Rig, report: &mut Report) -> anyhow::Result<()> {
    rig.say(&format!("P3: requests of {LIVES} lives of each kind"));
    let world = World::make(rig, TARGETS).await?;
    for (life, what, writes) in [
        (Life::Mitigation, "Mitigation alone", Goal::Most(6.0)),
        (Life::Incident(1), "Incident with one", Goal::Most(9.0)),
        (Life::Incident(8), "Incident with eight", Goal::None),
    ] {
        let mark = rig.mark().await?;
        for i in 0..LIVES {
            let targets: Vec<String> =
                (0..life.targets()).map(|t| target((i * life.targets() + t) % TARGETS)).collect();
            let name = format!("p3-{}-{i}", life.targets());
            world.begin(life, &name, &targets).await?;
            world.release(life, &name, &targets).await?;
        }
        let requests = rig.requests(mark).await?;
        let requests: Vec<_> =
            requests.iter().filter(|r| r.resource != "leases" && r.verb != "watch").collect();
        let each = |count: usize| count as f64 / LIVES as f64;
        let sum = |wanted: &dyn Fn(&str, &str) -> bool| {
            each(requests.iter().filter(|r| wanted(&r.verb, &r.resource)).count())
        };
        let reads = |verb: &str| matches!(verb, "get" | "list");
        let review = |resource: &str| resource.ends_with("accessreviews");
        let again = each(read_again(requests.iter().copied()));
        let rows = [
            ("writes", sum(&|v, r| !reads(v) && r != "events" && !review(r)), writes),
            ("GET", sum(&|v, _| v == "get") - again, Goal::Most(life.targets() as f64)),
            ("GET again, since somebody wrote between the patches of a release", again, Goal::None),
            ("LIST", sum(&|v, _| v == "list"), Goal::Exactly(0.0)),
            ("access reviews", sum(&|_, r| review(r)), Goal::None),
            ("Events", sum(&|_, r| r == "events"), Goal::None),
        ];
        for (kind, value, goal) in rows {
            report.rows.push(Row::plain(
                "P3",
                format!("{what}: {kind} in a life"),
                "requests",
                Spread::one(value),
                goal,
            ));
        }
        let mut table =
            format!("Requests in the life of: {what}\n\n| Request | Number | For |\n|---|---|---|\n");
        for (request, count) in counted(requests.iter().copied()) {
            let purpose = purpose(&request);
            // Writing to a String cannot fail.
            let _ = writeln!(table, "| {request} | {} | {purpose} |", each(count));
        }
        report.notes.push(table);
    }
    Ok(())
}
