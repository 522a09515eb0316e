#!/usr/bin/env bash
# Several machines with Ray, by hand. All of them see the same folder (code, data, models, runs) under
# the same path. Run this on each machine, the first one as head:
#
#   examples/distributed/ray.sh head                  on the first machine
#   examples/distributed/ray.sh worker ADDRESS        on every other one, ADDRESS as the head printed
#
# then on the first machine, with as many nodes as there are:
#
#   pyvision-rl rl --config configs/rl/image_7b.yaml --engine verl \
#     --verl.num_nodes 4 --verl.ray_address auto
set -euo pipefail

port=6379
case "${1:-}" in
  head)
    ray start --head --port "$port" --disable-usage-stats
    echo "on the others: $0 worker $(hostname -I | cut -d' ' -f1):$port"
    ;;
  worker)
    ray start --address "${2:?the address that the head printed}" --disable-usage-stats
    ;;
  *)
    sed -n '2,12p' "$0"
    exit 2
    ;;
esac
