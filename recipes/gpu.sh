#!/bin/sh
# A base on one GPU, in pieces of about MINUTES that go on where the last one stopped; run it again until it says "done".
#   recipes/gpu.sh PACK WORK MINUTES
set -eu
here=$(dirname "$0") pack=$1 work=$2 minutes=${3:-9}
dualanodiff=${DUALANODIFF:-"python3 -m dualanodiff"}
if [ ! -e "$work/autoencoder.done" ]; then
    made=$($dualanodiff pretrain autoencoder "$pack" --out "$work" --size 128 --steps 6000 --batch-size 32 --minutes "$minutes" --json)
    echo "$made"
    case $made in *'"steps": 6000'*) ;; *) echo "not done: run it again"; exit 0 ;; esac
    # No step of its own: it levels the output at the size that is drawn.
    $dualanodiff pretrain autoencoder "$pack" --out "$work" --size 256 --steps 6000 --batch-size 32 --decoder-only
    touch "$work/autoencoder.done"
fi
made=$($dualanodiff pretrain unet "$pack" --out "$work" --size 256 --channels 96,128,256 --plain-levels 1 \
    --steps 30000 --batch-pairs 32 --batch-singles 16 --learning-rate 8e-4 --pairs 12000 --singles 6000 \
    --card "$here/gpu.toml" --minutes "$minutes" --json)
echo "$made"
case $made in *'"steps": 30000'*) echo "done: $work/base" ;; *) echo "not done: run it again" ;; esac
