"""The commands of `tendril bench snapshot`: a small version of every recipe and study.

They run in this order; later ones use what earlier ones made. Words in braces are replaced:
{shared} is the folder $TENDRIL_SHARED. Without its language model the commands of LANGUAGE are
left out.
"""

HARVEST = (
    "harvest demo --limit 60 --threads 1",
    "harvest orbits_demo --limit 60 --threads 1",
    "harvest images --name other --subject handmade --inputs dead-leaves --limit 60 "
    "--sites mixed3b mixed3b_5x5 --per-input 5 --threads 1",
)
TRAIN = (
    "train demo --steps 150 --threads 1",
    "train topk --store demo --name two --latents 192 --k 6 --steps 100 --batch-size 256 "
    "--threads 1",
    "train random --store demo --name rand --latents 192 --k 6 --threads 1",
    "train batch_topk --store demo --name batch --latents 192 --k 6 --steps 60 --batch-size 256 "
    "--threads 1",
    "train matryoshka --store demo --name matryoshka --latents 192 --k 6 --steps 60 "
    "--batch-size 256 --threads 1",
    "train relu_l1 --store demo --name relu --latents 192 --steps 60 --batch-size 256 --threads 1",
    "train gated --store demo --name gated --latents 192 --steps 60 --batch-size 256 --threads 1",
    "train jumprelu --store demo --name jump --latents 192 --steps 60 --batch-size 256 --threads 1",
    "train tied --store demo --name tiedl1 --latents 192 --steps 60 --batch-size 256 --threads 1",
    "train pca --store demo --name pca --k 6 --threads 1",
    "train crosscoder --store other --sites mixed3b mixed3b_5x5 --latents 64 --k 4 --steps 40 "
    "--batch-size 64 --threads 1 --held-out 0.1",
    "train orbits_demo --steps 60 --batch-size 32 --threads 1",
    "train control_demo --steps 60 --batch-size 32 --threads 1",
    "train group_crosscoder --store orbits-demo --steps 20 --batch-size 32 --latents 32 --k 4 "
    "--threads 1",
    "train sweep --store demo --site mixed3b_5x5 --objectives topk --sizes 96 "
    "--sparsities k=4,8 --seeds 0 --steps 40 --batch-size 256 --threads 1",
)
STUDY = (
    "study curves --run demo --orientation-step 15",
    "study curves --run '' --subject handmade --site mixed3b --orientation-step 30",
    "study missing --run demo two rand --orientation-step 15 --no-umap --examples 1 --rows 2000",
    "study joint --run demo --images 1 --step 15 --orientation-step 15",
    "study visualise --run demo --units 1 --steps 8",
    "study symmetry --run orbits-demo --controls control-demo --visualise 0 --no-umap "
    "--anchors 100",
    "study parts --run crosscoder",
    "study splice --run demo two --limit 40",
    "study compare --run demo two",
)
LANGUAGE = (
    "harvest language --name words --subject {shared}/lm/stories260K "
    "--inputs {shared}/text/wikitext2_valid.txt --limit 150 --sites resid_post.2 --threads 1",
    "train topk --store words --name words --latents 256 --k 16 --steps 100 --batch-size 512 "
    "--threads 1",
    "study features --run words",
    "study splice --run words --limit 10",
    "study ablate --run words --latent 3 17 --limit 10",
    "study patching --run words --pairs 12 --fitted 4 --greedy 4 --candidates 8 --rows 4000",
)
COMMANDS = (*HARVEST, *TRAIN, *STUDY)
NEEDED = ("lm/stories260K", "text/wikitext2_valid.txt")  # below $TENDRIL_SHARED, for LANGUAGE
