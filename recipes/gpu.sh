#!/bin/sh
# A base on one GPU, in pieces of MINUTES that resume: run it again until it says that all steps are done.
#   recipes/gpu.sh PACK WORK MINUTES
# The sizes fill a GPU of 80 GB only in part: the pictures are drawn by the processor's cores, and set the pace at first.
set -eu
pack=$1 work=$2 minutes=${3:-9}
dualanodiff=${DUALANODIFF:-"python3 -m dualanodiff"}
$dualanodiff pretrain autoencoder "$pack" --out "$work" --size 128 --steps 6000 --batch-size 32 --minutes "$minutes"
$dualanodiff pretrain unet "$pack" --out "$work" --size 256 --channels 96,128,256 --plain-levels 1 --steps 30000 \
    --batch-pairs 32 --batch-singles 16 --learning-rate 8e-4 --pairs 12000 --singles 6000 \
    --card "$(dirname "$0")/mini.toml" --minutes "$minutes"
