// A closed workspace for these endpoints, in Bicep; main.tf is the same in Terraform.
//   az deployment group create --resource-group … --template-file samples/azure/infrastructure/main.bicep \
//     --parameters name=clip vnetId=… subnetId=…
// Clients and deployers reach it only from the network of `vnetId`. Endpoints and jobs reach only Azure's
// own services and the hosts of `pictureHosts`.

@description('3 to 12 small letters and digits, from which all names here are made')
@minLength(3)
@maxLength(12)
param name string

@description('ARM id of the network of clients and deployers')
param vnetId string

@description('ARM id of its subnet that takes the private endpoints')
param subnetId string

@description('Host names that images are downloaded from: images.example.org, *.example.org')
param pictureHosts array = []

param location string = resourceGroup().location

// Container images are built from PyPI and PyTorch's index; the other hosts serve images to embed.
var hosts = concat(
  ['pypi.org', 'files.pythonhosted.org', 'download.pytorch.org', 'conda.anaconda.org'],
  pictureHosts
)

resource logs 'Microsoft.OperationalInsights/workspaces@2023-09-01' = {
  name: '${name}-logs'
  location: location
}

resource insights 'Microsoft.Insights/components@2020-02-02' = {
  name: '${name}-insights'
  location: location
  kind: 'web'
  properties: {
    Application_Type: 'web'
    WorkspaceResourceId: logs.id
  }
}

resource store 'Microsoft.Storage/storageAccounts@2023-05-01' = {
  name: '${name}store'
  location: location
  kind: 'StorageV2'
  sku: {
    name: 'Standard_LRS'
  }
  properties: {
    publicNetworkAccess: 'Disabled'
    allowBlobPublicAccess: false
    minimumTlsVersion: 'TLS1_2'
    networkAcls: {
      defaultAction: 'Deny'
      bypass: 'AzureServices'
    }
  }
}

resource vault 'Microsoft.KeyVault/vaults@2023-07-01' = {
  name: '${name}-vault'
  location: location
  properties: {
    tenantId: subscription().tenantId
    sku: {
      family: 'A'
      name: 'standard'
    }
    enableRbacAuthorization: true // secret injection needs roles, not access policies
    enablePurgeProtection: true
    publicNetworkAccess: 'Disabled'
    networkAcls: {
      defaultAction: 'Deny'
      bypass: 'AzureServices'
    }
  }
}

resource registry 'Microsoft.ContainerRegistry/registries@2023-07-01' = {
  name: '${name}images'
  location: location
  sku: {
    name: 'Premium' // private endpoints need it
  }
  properties: {
    publicNetworkAccess: 'Disabled'
    networkRuleBypassOptions: 'AzureServices'
  }
}

resource workspace 'Microsoft.MachineLearningServices/workspaces@2024-10-01' = {
  name: name
  location: location
  identity: {
    type: 'SystemAssigned'
  }
  properties: {
    applicationInsights: insights.id
    storageAccount: store.id
    keyVault: vault.id
    containerRegistry: registry.id
    imageBuildCompute: 'clip-builder' // a closed registry cannot build container images itself
    publicNetworkAccess: 'Disabled'
    managedNetwork: {
      isolationMode: 'AllowOnlyApprovedOutbound'
    }
  }
}

resource builder 'Microsoft.MachineLearningServices/workspaces/computes@2024-10-01' = {
  parent: workspace
  name: 'clip-builder'
  location: location
  properties: {
    computeType: 'AmlCompute'
    properties: {
      vmSize: 'Standard_D4as_v4'
      vmPriority: 'Dedicated'
      scaleSettings: {
        minNodeCount: 0
        maxNodeCount: 1
        nodeIdleTimeBeforeScaleDown: 'PT15M'
      }
    }
  }
}

@batchSize(1) // the workspace takes one change of its rules at a time
resource rules 'Microsoft.MachineLearningServices/workspaces/outboundRules@2024-10-01' = [
  for host in hosts: {
    parent: workspace
    name: replace(replace(host, '*.', 'any-'), '.', '-')
    properties: {
      type: 'FQDN'
      category: 'UserDefined'
      destination: host
    }
  }
]

// The private endpoint of each service, and its DNS zones.
var private = [
  { name: 'workspace', id: workspace.id, part: 'amlworkspace', zones: [0, 1] }
  { name: 'blob', id: store.id, part: 'blob', zones: [2] }
  { name: 'file', id: store.id, part: 'file', zones: [3] }
  { name: 'vault', id: vault.id, part: 'vault', zones: [4] }
  { name: 'registry', id: registry.id, part: 'registry', zones: [5] }
]
var zoneNames = [
  'privatelink.api.azureml.ms'
  'privatelink.notebooks.azure.net'
  'privatelink.blob.${environment().suffixes.storage}'
  'privatelink.file.${environment().suffixes.storage}'
  'privatelink.vaultcore.azure.net'
  'privatelink.azurecr.io'
]

resource zones 'Microsoft.Network/privateDnsZones@2020-06-01' = [
  for zone in zoneNames: {
    name: zone
    location: 'global'
  }
]

resource links 'Microsoft.Network/privateDnsZones/virtualNetworkLinks@2020-06-01' = [
  for (zone, index) in zoneNames: {
    parent: zones[index]
    name: name
    location: 'global'
    properties: {
      registrationEnabled: false
      virtualNetwork: {
        id: vnetId
      }
    }
  }
]

resource endpoints 'Microsoft.Network/privateEndpoints@2023-11-01' = [
  for service in private: {
    name: '${name}-${service.name}'
    location: location
    properties: {
      subnet: {
        id: subnetId
      }
      privateLinkServiceConnections: [
        {
          name: service.name
          properties: {
            privateLinkServiceId: service.id
            groupIds: [service.part]
          }
        }
      ]
    }
  }
]

resource names 'Microsoft.Network/privateEndpoints/privateDnsZoneGroups@2023-11-01' = [
  for (service, index) in private: {
    parent: endpoints[index]
    name: 'default'
    properties: {
      privateDnsZoneConfigs: [
        for zone in service.zones: {
          name: replace(zoneNames[zone], '.', '-')
          properties: {
            privateDnsZoneId: zones[zone].id
          }
        }
      ]
    }
  }
]

// The identity of endpoints (IDENTITY=…): it pulls container images, and reads models and secrets.
resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31' = {
  name: '${name}-endpoint'
  location: location
}

// https://learn.microsoft.com/azure/role-based-access-control/built-in-roles
var acrPull = subscriptionResourceId('Microsoft.Authorization/roleDefinitions', '7f951dda-4ed3-4680-a7ca-43fe172d538d')
var blobReader = subscriptionResourceId('Microsoft.Authorization/roleDefinitions', '2a2b9908-6ea1-4ae2-8e65-a410df84e7d1')
var secretsUser = subscriptionResourceId('Microsoft.Authorization/roleDefinitions', '4633458b-17de-408a-b874-0445c86b69e6')

resource pulls 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: registry
  name: guid(registry.id, identity.id, acrPull)
  properties: {
    principalId: identity.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: acrPull
  }
}

resource reads 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: store
  name: guid(store.id, identity.id, blobReader)
  properties: {
    principalId: identity.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: blobReader
  }
}

resource secrets 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: vault
  name: guid(vault.id, identity.id, secretsUser)
  properties: {
    principalId: identity.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: secretsUser
  }
}

@description('IDENTITY= of samples/azure/deploy-online.sh')
output identity string = identity.id

output workspace string = workspace.name
