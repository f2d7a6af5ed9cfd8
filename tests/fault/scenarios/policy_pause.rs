use super::*;
use crate::{
    scenario::Scenario,
    support::workload,
    world::{World, says},
};
use futures::FutureExt;
use serde_json::json;

pub const SCENARIO: Scenario = Scenario {
    name: "policy-pause",
    about: "a policy pauses: what is held stays and can be released, what is new or waits is refused for good; when it is lifted, what is asked for anew is made",
    fields: &[("ConfigMap", "held", "/data/mode"), ("ConfigMap", "flags", "/data/mode")],
    most: 100,
    run: |world| run(world).boxed(),
};

async fn run(world: &World) {
    let slow = || json!({"featureFlag": {"key": "mode", "value": "slow"}});
    world.create(workload::configmap("held", &[("mode", "normal")])).await;
    world.create(workload::configmap("flags", &[("mode", "normal")])).await;
    world.create(mitigation("held", "ConfigMap", "held", slow())).await;
    world.effective("held").await;
    world.create(mitigation("waiting", "Deployment", "nobody", json!({"scale": {"replicas": 0}}))).await;
    world.until("Mitigation", "waiting", "TargetNotFound", |m| says(m, "Ready").1 == "TargetNotFound").await;

    world.pause().await;
    refused(world, "waiting").await;
    world.create(mitigation("new", "ConfigMap", "flags", slow())).await;
    refused(world, "new").await;
    let held = world.until("ConfigMap", "held", "held value", |_| true).await;
    assert_eq!(held["data"]["mode"], "slow", "what is held stays");
    world.release("held").await;
    world.reaches("held", "Released").await;

    world.stop_operator().await;
    let flags = world.recorder.all(&world.namespace.name).into_iter().filter(|r| r.name == "flags");
    let touched = flags.filter(|r| r.object["data"]["mode"] != "normal").count();
    assert_eq!(touched, 0, "nothing new was taken");
    world.resume().await;
    world.create(mitigation("again", "ConfigMap", "flags", slow())).await;
    world.start_operator().await;
    world.effective("again").await;
    for name in ["waiting", "new"] {
        refused(world, name).await;
    }
}

async fn refused(world: &World, name: &str) {
    world
        .until("Mitigation", name, "refusal by the pause", |m| {
            m["status"]["phase"] == "Refused" && says(m, "Ready").1 == "Paused"
        })
        .await;
}
